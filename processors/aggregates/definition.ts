import { createHash } from 'node:crypto';
import { sizesOf } from '../../schemas/aggregate-sizes.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import type { CatalogAggregate } from '../../schemas/generated/catalog.ts';
import { aggregateFunctions, type Definition } from './model.ts';

/** Goes up when the state of the same definition is kept in another way: then it is made anew. */
const stateVersion = 2;

/** The aggregates of a catalogue, by name. */
export function definitionsOf(catalog: Catalog): ReadonlyMap<string, Definition> {
  return new Map(Object.entries(catalog.aggregates).map(([name, aggregate]) => [name, define(name, aggregate)]));
}

function define(name: string, aggregate: CatalogAggregate): Definition {
  const { sizes } = sizesOf(aggregate);
  if (!sizes) throw new Error(`the windows of aggregate ${name} have not been checked`);
  const { table, by, value, time, of, windows = [] } = aggregate;
  const { levels, sliding } = sizes;
  const definition = {
    name,
    table,
    by,
    value,
    time,
    of,
    levels,
    windows: levels.map(({ text }) => text).filter((text) => windows.includes(text)),
    sliding,
    functions: aggregateFunctions.filter((fn) => aggregate.functions.includes(fn)),
    percentiles: aggregate.functions.some((fn) => /^p\d/.test(fn)),
  };
  return { ...definition, hash: hashOf(definition) };
}

/** Short text of what the stored state depends on. How long windows are kept, and what of them is shown, can change without making them anew. */
function hashOf({ table, by, value, time, of, levels, percentiles }: Omit<Definition, 'hash'>): string {
  const state = [stateVersion, table, by, value ?? null, time ?? null, of, levels.map(({ text }) => text), percentiles];
  return createHash('sha256').update(JSON.stringify(state)).digest('hex').slice(0, 12);
}

/**
 * What the namespace of a definition is called after a rebuild: its hash, and which making it is.
 * @param making letters and digits
 */
export function madeAnew(hash: string, making: string): string {
  return `${plainHash(hash)}.${making}`;
}

/** The hash of a definition, however often its state has been made anew. */
export function plainHash(hash: string): string {
  return hash.split('.', 1)[0]!;
}

/** Can this version work on the state of a definition that another one may have written down? */
export function isCurrent(definition: Definition, hash: string): boolean {
  try {
    return hashOf(definition) === plainHash(hash);
  } catch {
    return false;
  }
}

import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';
import type { Config } from '../../pipeline/runtime/config.ts';
import { messageOf, usage } from '../../pipeline/runtime/errors.ts';
import { processors } from '../../processors/index.ts';
import type { ProcessorFactory } from '../../processors/processor-factory.ts';

/** Names that roles have already; the names of own processors go into keys, subjects and metrics. */
const taken: ReadonlySet<string> = new Set(['capture', 'gateway', ...processors.map(({ name }) => name)]);

/**
 * Every processor of this installation: those of Headwater, then those of the modules that HEADWATER_PROCESSORS names. All faults are told at once.
 * @throws HeadwaterError `bad_processor` (usage)
 */
export async function allProcessors({ processors: paths }: Pick<Config, 'processors'>): Promise<readonly ProcessorFactory[]> {
  const faults: string[] = [];
  const own: ProcessorFactory[] = [];
  for (const path of paths ?? []) {
    try {
      const factory = factoryOf((await import(pathToFileURL(resolve(path)).href)) as Readonly<Record<string, unknown>>);
      if (own.some(({ name }) => name === factory.name)) throw new Error(`another one is named ${factory.name} too`);
      own.push(factory);
    } catch (error) {
      faults.push(`HEADWATER_PROCESSORS: ${path}: ${messageOf(error)}`);
    }
  }
  if (faults.length > 0)
    throw usage('bad_processor', faults.join('\n'), 'each file exports `processor`, as examples/own-processor/README.md shows');
  return [...processors, ...own];
}

function factoryOf({ processor }: Readonly<Record<string, unknown>>): ProcessorFactory {
  const factory = processor as Partial<ProcessorFactory> | undefined;
  if (typeof factory?.name !== 'string' || typeof factory.start !== 'function') throw new Error('it exports no processor');
  if (taken.has(factory.name)) throw new Error(`the name ${factory.name} is one of Headwater's own roles`);
  if (!/^[a-z][a-z0-9_-]{0,39}$/.test(factory.name))
    throw new Error(`the name '${factory.name}' may have small letters, digits, - and _ only, at most 40`);
  return factory as ProcessorFactory;
}

import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';

type Members = Record<string, unknown>;

/**
 * The OpenAPI description as one document: what it takes from the JSON Schemas is put among its own, and every reference stays
 * within it.
 * @param file the YAML's URL; references to schemas are relative to it
 */
export async function bundledOpenapi(file: URL): Promise<Members> {
  const document = parse(await readFile(file, 'utf8')) as Members & { components: { schemas: Members } };
  const bundle = new Bundle(document.components.schemas);
  const resolved = (await bundle.resolve(document, file, undefined)) as typeof document;
  return { ...resolved, components: { ...resolved.components, schemas: { ...resolved.components.schemas, ...bundle.taken } } };
}

class Bundle {
  /** Definitions of other files, by their names here. */
  readonly taken: Members = {};
  readonly #names = new Map<string, string>();
  readonly #files = new Map<string, Members>();
  readonly #own: Members;

  constructor(own: Members) {
    this.#own = own;
  }

  /** @param home the schema's file, for references within it; undefined for the description itself */
  async resolve(node: unknown, base: URL, home: URL | undefined): Promise<unknown> {
    if (typeof node !== 'object' || node === null) return node;
    // One after the other, so that the order of what is taken in is always the same.
    if (Array.isArray(node)) {
      const items: unknown[] = [];
      for (const item of node) items.push(await this.resolve(item, base, home));
      return items;
    }
    const entries: [string, unknown][] = [];
    for (const [name, value] of Object.entries(node)) {
      const isReference = name === '$ref' && typeof value === 'string' && (home !== undefined || !value.startsWith('#'));
      entries.push([name, isReference ? await this.#take(value, base) : await this.resolve(value, base, home)]);
    }
    return Object.fromEntries(entries);
  }

  /** The reference as it is here, once what it names has been taken in. */
  async #take(reference: string, base: URL): Promise<string> {
    const target = new URL(reference, base);
    const known = this.#names.get(target.href);
    if (known !== undefined) return known;
    const definition = /^#\/\$defs\/([A-Za-z]+)$/.exec(target.hash)?.[1];
    const file = new URL(target.href.slice(0, -target.hash.length || undefined));
    const found = definition === undefined ? undefined : ((await this.#file(file))['$defs'] as Members)[definition];
    if (definition === undefined || found === undefined) throw new Error(`${reference} names no definition`);
    const stem = /([a-z]+)\.schema\.json$/.exec(file.pathname)?.[1] ?? '';
    const isFree = !(definition in this.#own) && !(definition in this.taken);
    const name = isFree ? definition : `${stem}${definition[0]!.toUpperCase()}${definition.slice(1)}`;
    const here = `#/components/schemas/${name}`;
    this.#names.set(target.href, here);
    this.taken[name] = {};
    this.taken[name] = await this.resolve(found, file, file);
    return here;
  }

  async #file(url: URL): Promise<Members> {
    const known = this.#files.get(url.href) ?? (JSON.parse(await readFile(url, 'utf8')) as Members);
    this.#files.set(url.href, known);
    return known;
  }
}

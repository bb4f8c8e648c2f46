import { readFile, stat } from 'node:fs/promises';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { parseCatalog } from '../../schemas/catalog-file.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import { definitionsOf } from './definition.ts';
import type { Definition } from './model.ts';

type Definitions = ReadonlyMap<string, Definition>;

/**
 * The definitions of the catalogue: those it was started with, and later those of the file whenever it has changed. A file that is being written can
 * look like one with fewer aggregates, so what it says counts once two calls in a row have found the same.
 */
export class CatalogWatch {
  readonly #file: string | undefined;
  readonly #log: Logger;
  /** In force now. */
  #definitions: Definitions;
  #begun = false;
  /** Where the file was when what it holds was last judged. */
  #judged: string | undefined;
  /** What the call before found in a file that has not been judged. */
  #found: string | undefined;

  /**
   * @param catalog in force now
   * @param file where it comes from, if it has a file
   */
  constructor(catalog: Catalog, file: string | undefined, log: Logger) {
    this.#definitions = definitionsOf(catalog);
    this.#file = file;
    this.#log = log;
  }

  /**
   * The definitions, at the first call and when they have changed since the last one. A file that cannot be used changes nothing, and is told
   * once.
   */
  async changed(): Promise<Definitions | undefined> {
    // The file may have changed since it was read for the start, so the first call looks, too.
    const changed = this.#file !== undefined && (await this.#look(this.#file));
    const isNews = changed || !this.#begun;
    this.#begun = true;
    return isNews ? this.#definitions : undefined;
  }

  /** True when the definitions have changed. */
  async #look(file: string): Promise<boolean> {
    const version = await versionOf(file);
    if (version === undefined || version === this.#judged) {
      this.#found = undefined;
      return false;
    }
    const text = await readFile(file, 'utf8').catch(() => undefined);
    const before = this.#found;
    this.#found = text;
    // What was written while it was read shows at the next look, since the version is that of before.
    if (text === undefined || text !== before) return false;
    this.#judged = version;
    this.#found = undefined;
    return this.#take(text, file);
  }

  #take(text: string, file: string): boolean {
    try {
      const definitions = definitionsOf(parseCatalog(text, file));
      if (JSON.stringify([...definitions]) === JSON.stringify([...this.#definitions])) return false;
      this.#definitions = definitions;
      return true;
    } catch (error) {
      this.#log.error(
        `aggregates: the catalogue has changed and cannot be used, the definitions of before stay in force: ${messageOf(error)}`,
      );
      return false;
    }
  }
}

/** Changes with what the file holds; undefined while there is none. */
async function versionOf(file: string): Promise<string | undefined> {
  const found = await stat(file).catch(() => undefined);
  return found && `${found.ino} ${found.size} ${found.mtimeMs}`;
}

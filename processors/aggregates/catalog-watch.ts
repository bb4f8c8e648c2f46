import { readFile, stat } from 'node:fs/promises';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { parseCatalog } from '../../schemas/catalog-file.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import { definitionsOf } from './definition.ts';
import type { Definition } from './model.ts';

/** The definitions of the catalogue: those it was started with, and later those of the file whenever it has changed. */
export class CatalogWatch {
  readonly #file: string | undefined;
  readonly #log: Logger;
  #catalog: Catalog | undefined;
  #seen: string | undefined;

  /**
   * @param catalog in force now
   * @param file where it comes from, if it has a file
   */
  constructor(catalog: Catalog, file: string | undefined, log: Logger) {
    this.#catalog = catalog;
    this.#file = file;
    this.#log = log;
  }

  /** The definitions, if they have changed since the last call. A file that cannot be used changes nothing, and is told once. */
  async changed(): Promise<ReadonlyMap<string, Definition> | undefined> {
    const version = await this.#version();
    const begins = this.#catalog && definitionsOf(this.#catalog);
    this.#catalog = undefined;
    // It may have changed since it was read for the start, so the first call reads it, too.
    if (version === undefined || version === this.#seen) return begins;
    this.#seen = version;
    return (await this.#read()) ?? begins;
  }

  async #version(): Promise<string | undefined> {
    if (this.#file === undefined) return undefined;
    const found = await stat(this.#file).catch(() => undefined);
    return found && `${found.ino} ${found.size} ${found.mtimeMs}`;
  }

  async #read(): Promise<ReadonlyMap<string, Definition> | undefined> {
    try {
      return definitionsOf(parseCatalog(await readFile(this.#file!, 'utf8'), this.#file!));
    } catch (error) {
      this.#log.error(
        `aggregates: the catalogue has changed and cannot be used, the definitions of before stay in force: ${messageOf(error)}`,
      );
      return undefined;
    }
  }
}

import { readFile } from 'node:fs/promises';
import type { Config } from '../../pipeline/runtime/config.ts';
import { messageOf, usage } from '../../pipeline/runtime/errors.ts';
import { defiCatalog, parseCatalog } from '../../schemas/catalog-file.ts';
import { defaultCatalog, type Catalog } from '../../schemas/catalog.ts';

/**
 * The catalogue in force: the configured file; else the DeFi one for the local demo database, none for another.
 * @throws CatalogError; HeadwaterError `no_catalog` (usage)
 */
export async function loadCatalog(config: Config): Promise<Catalog> {
  if (config.catalog !== undefined) {
    const text = await readFile(config.catalog, 'utf8').catch((error: unknown) => {
      throw usage(
        'no_catalog',
        `the catalogue ${config.catalog} cannot be read: ${messageOf(error)}`,
        'correct HEADWATER_CATALOG, or write one with `headwater catalog init`',
      );
    });
    return parseCatalog(text, config.catalog);
  }
  return config.provenance.databaseUrl === 'local' ? defiCatalog() : defaultCatalog();
}

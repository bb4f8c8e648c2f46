import { writeFile } from 'node:fs/promises';
import { messageOf, refused, usage } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { catalogTemplate, findTables } from '../catalog-template.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withPostgres } from '../connections.ts';
import { plural } from '../progress-text.ts';

/** Writes a catalogue of the tables that the database has. */
export async function init(cli: Cli, file: string, { force, data }: { force?: boolean; data?: string }): Promise<void> {
  const config = await locate(configOf(cli, { data }), 'databaseUrl');
  const tables = await withPostgres(config, silentLogger(), findTables);
  const text = catalogTemplate(tables);
  if (file === '-') return cli.out.write(text);
  await save(file, text, force === true);
  const without = tables.filter(({ identity }) => identity === undefined).map(({ schema, name }) => `${schema}.${name}`);
  await cli.out.line(`Wrote ${file}: ${plural(tables.length, 'table')}. Edit it, and start with HEADWATER_CATALOG=${file}`);
  if (without.length > 0)
    await cli.err.line(`Without usable identity, and so not captured unless you choose how (see the file): ${without.join(', ')}`);
}

async function save(file: string, text: string, force: boolean): Promise<void> {
  try {
    await writeFile(file, text, { flag: force ? 'w' : 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST')
      throw refused('file_exists', `${file} is there already`, 'give another name, or --force to replace it');
    throw usage('not_written', `${file} cannot be written: ${messageOf(error)}`);
  }
}

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectFile } from './local/paths.ts';

/** `headwater`: its own schema, on every database. `demo`: the demo market in `public`, on the local database only. */
export type MigrationSet = 'headwater' | 'demo';

export interface Migration {
  /** `<set>/<file without .sql>`, as recorded in the database. */
  readonly name: string;
  readonly sql: string;
}

/** The migrations of a set in the order of their names. SQL files are not compiled into `dist`: they are read where the sources are. */
export async function migrationsOf(set: MigrationSet, directory: string = projectFile('deploy/migrations')): Promise<Migration[]> {
  const folder = join(directory, set);
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort();
  return Promise.all(files.map(async (file) => ({ name: `${set}/${file.slice(0, -4)}`, sql: await readFile(join(folder, file), 'utf8') })));
}

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createPool } from '../pipeline/clients/postgres.ts';
import { ensureKey, generateKey } from '../pipeline/keys/postgres-keys.ts';
import type { Config } from '../pipeline/runtime/config.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';

/** The key that `up` prints: made once, kept in the data directory (mode 0600), and known to whatever database is used. */
export async function operatorKey(config: Config, log: Logger): Promise<string> {
  const path = join(config.data, 'operator.key');
  const key =
    (await readFile(path, 'utf8').then(
      (text) => text.trim(),
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
        return undefined;
      },
    )) ?? (await newKey(config.data, path));
  const pool = createPool(config.databaseUrl!, 'headwater up', log, 1);
  try {
    await ensureKey(pool, key, { name: 'operator', owner: 'operator', scopes: ['read', 'alerts', 'admin'] });
    return key;
  } finally {
    await pool.end();
  }
}

async function newKey(data: string, path: string): Promise<string> {
  const key = generateKey();
  await mkdir(data, { recursive: true });
  await writeFile(path, `${key}\n`, { mode: 0o600 });
  return key;
}

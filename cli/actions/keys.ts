import type { PgPool } from '../../pipeline/clients/postgres.ts';
import type { KeyLimits } from '../../pipeline/keys/key-store.ts';
import { createKey, listKeys, revokeKey, type KeyInfo } from '../../pipeline/keys/postgres-keys.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withPostgres } from '../connections.ts';
import { table } from '../table.ts';

interface Common {
  readonly data?: string;
  readonly json?: boolean;
}

interface CreateOptions extends Common, KeyLimits {
  readonly owner?: string;
  readonly scopes?: readonly string[];
  readonly expires?: number;
}

/** Makes a key, and prints it. */
export async function create(cli: Cli, name: string, options: CreateOptions): Promise<void> {
  const { connections, subscriptions, commands, tier, expires } = options;
  const limits = {
    ...(connections && { connections }),
    ...(subscriptions && { subscriptions }),
    ...(commands && { commands }),
    ...(tier && { tier }),
  };
  const expiry = expires === undefined ? {} : { expiresAt: new Date(Date.now() + expires) };
  const wanted = { name, owner: options.owner ?? name, scopes: options.scopes ?? ['read'], limits, ...expiry };
  const { key, info } = await onKeys(cli, options, (pool) => createKey(pool, wanted));
  if (options.json) return cli.out.line(JSON.stringify({ key, ...info }));
  await cli.err.line(`${describe(info)}. Keep the key safe: it is not shown again.`);
  await cli.out.line(key);
}

/** Prints the keys. */
export async function list(cli: Cli, options: Common): Promise<void> {
  const keys = await onKeys(cli, options, listKeys);
  if (options.json) return cli.out.line(JSON.stringify(keys));
  if (keys.length === 0) return cli.out.line('There are no keys. `headwater keys create <name>` makes one.');
  const rows = keys.map((key) => [
    key.id,
    key.name,
    key.owner,
    key.scopes.join(','),
    key.createdAt.toISOString(),
    key.expiresAt?.toISOString() ?? 'never',
    stateOf(key),
  ]);
  await cli.out.line(table(cli.out, ['ID', 'NAME', 'OWNER', 'SCOPES', 'CREATED', 'EXPIRES', 'STATE'], rows));
}

/** Revokes a key. */
export async function revoke(cli: Cli, idOrName: string, options: Common): Promise<void> {
  const info = await onKeys(cli, options, (pool) => revokeKey(pool, idOrName));
  await cli.out.line(options.json ? JSON.stringify(info) : `Revoked: ${describe(info)}.`);
}

async function onKeys<T>(cli: Cli, options: Common, work: (pool: PgPool) => Promise<T>): Promise<T> {
  const config = await locate(configOf(cli, { data: options.data }), 'databaseUrl');
  return withPostgres(config, silentLogger(), work);
}

function describe({ id, name, owner, scopes, expiresAt }: KeyInfo): string {
  return `key ${name} of ${owner} (${id}), scopes ${scopes.join(', ')}, ${expiresAt ? `valid until ${expiresAt.toISOString()}` : 'does not expire'}`;
}

function stateOf({ revokedAt, expiresAt }: KeyInfo): string {
  if (revokedAt) return 'revoked';
  return expiresAt && expiresAt.getTime() <= Date.now() ? 'expired' : 'valid';
}

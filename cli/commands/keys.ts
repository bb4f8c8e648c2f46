import type { Command } from 'commander';
import type { KeyLimits } from '../../pipeline/keys/key-store.ts';
import { createKey, isScope, listKeys, revokeKey, type KeyInfo } from '../../pipeline/keys/postgres-keys.ts';
import type { PgPool } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { count, duration } from '../../pipeline/runtime/setting-types.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withPostgres } from '../connections.ts';
import { listOf } from '../option-values.ts';
import { table } from '../output.ts';
import { verb } from '../verb.ts';

interface Common {
  readonly data?: string;
  readonly json?: boolean;
}

interface CreateOptions extends Common, KeyLimits {
  readonly owner?: string;
  readonly scopes?: readonly string[];
  readonly expires?: number;
}

const positive = count(1, 1_000_000).parse;

/** `headwater keys create|list|revoke` */
export function keysCommand(cli: Cli): Command {
  return verb(cli, 'keys', 'API keys.', [
    ['keys create dashboard --scopes read', 'prints the key, this once'],
    ['keys list', 'all keys, without the keys themselves'],
    ['keys revoke dashboard', 'by name or id'],
  ])
    .addCommand(createCommand(cli))
    .addCommand(listCommand(cli))
    .addCommand(revokeCommand(cli));
}

function createCommand(cli: Cli): Command {
  return verb(cli, 'create', 'Make an API key. It is printed on stdout, once; only its SHA-256 is kept.', [
    ['keys create dashboard', 'may read every channel'],
    ['keys create bot --owner alice --scopes read:prices,alerts --expires 90d', 'what alice’s bot needs, for 90 days'],
  ])
    .argument('<name>', 'what it is for')
    .option('--owner <id>', 'whose key it is (default: its name)')
    .value(
      '--scopes <list>',
      'read, read:<channel>, alerts, admin (default: read)',
      listOf(isScope, 'read, read:<channel>, alerts or admin'),
    )
    .value('--expires <duration>', 'valid for so long, such as 12h or 90d (default: for ever)', duration.parse)
    .value('--connections <n>', 'connections at once, instead of the configured limit', positive)
    .value('--subscriptions <n>', 'subscriptions of a connection, instead of the configured limit', positive)
    .value('--commands <n>', 'commands a second, instead of the configured limit', positive)
    .option('--tier <name>', 'how many queries it may make: one of HEADWATER_QUERY_TIERS (default: the first)')
    .dataOption()
    .option('--json', 'print the key with what is kept of it as JSON')
    .action(async (name: string, options: CreateOptions) => {
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
    });
}

function listCommand(cli: Cli): Command {
  return verb(cli, 'list', 'List the API keys, the newest first.', [
    ['keys list', 'a table'],
    ['keys list --json', 'a JSON array'],
  ])
    .dataOption()
    .option('--json', 'print a JSON array')
    .action(async (options: Common) => {
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
    });
}

function revokeCommand(cli: Cli): Command {
  return verb(cli, 'revoke', 'Revoke an API key: it is refused from now on.', [
    ['keys revoke dashboard', 'by its name'],
    ['keys revoke 0d6c1c0e-8c8e-4b4e-9d0e-0f4f1d1b2a33', 'by its id'],
  ])
    .argument('<id or name>', 'as `keys list` shows it')
    .dataOption()
    .option('--json', 'print what is kept of it as JSON')
    .action(async (idOrName: string, options: Common) => {
      const info = await onKeys(cli, options, (pool) => revokeKey(pool, idOrName));
      await cli.out.line(options.json ? JSON.stringify(info) : `Revoked: ${describe(info)}.`);
    });
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

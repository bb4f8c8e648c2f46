import type { Command } from 'commander';
import { isScope } from '../../pipeline/keys/postgres-keys.ts';
import { count, duration } from '../../pipeline/runtime/setting-types.ts';
import type { Cli } from '../cli.ts';
import { listOf } from '../option-values.ts';
import { verb } from '../verb.ts';

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
    .does(async () => (await import('../actions/keys.ts')).create);
}

function listCommand(cli: Cli): Command {
  return verb(cli, 'list', 'List the API keys, the newest first.', [
    ['keys list', 'a table'],
    ['keys list --json', 'a JSON array'],
  ])
    .dataOption()
    .option('--json', 'print a JSON array')
    .does(async () => (await import('../actions/keys.ts')).list);
}

function revokeCommand(cli: Cli): Command {
  return verb(cli, 'revoke', 'Revoke an API key: it is refused from now on.', [
    ['keys revoke dashboard', 'by its name'],
    ['keys revoke 0d6c1c0e-8c8e-4b4e-9d0e-0f4f1d1b2a33', 'by its id'],
  ])
    .argument('<id or name>', 'as `keys list` shows it')
    .dataOption()
    .option('--json', 'print what is kept of it as JSON')
    .does(async () => (await import('../actions/keys.ts')).revoke);
}

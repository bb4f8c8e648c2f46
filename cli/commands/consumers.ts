import type { Command } from 'commander';
import { rowOps } from '../../pipeline/replay/row-ops.ts';
import { duration, type SettingType } from '../../pipeline/runtime/setting-types.ts';
import type { Cli } from '../cli.ts';
import { listOf, tableNames } from '../option-values.ts';
import { beginning, moment, ops } from '../replay/request.ts';
import { verb } from '../verb.ts';

const dayMs = 86_400_000;

/** Of none at all the server makes a time of its own, and what is too large for it, it refuses. */
const ackWait: SettingType<number> = {
  label: duration.label,
  parse: (text) => {
    const ms = duration.parse(text);
    if (ms >= 1 && ms <= 365 * dayMs) return ms;
    throw new Error('must be a duration from 1ms to 365d');
  },
};

/** `headwater consumers add|list|remove` */
export function consumersCommand(cli: Cli): Command {
  return verb(cli, 'consumers', 'Teams that read the log with NATS clients of their own.', [
    ['consumers add billing --tables orders,payments > billing.env', 'a place in the log, and the credentials for it'],
    ['consumers list', 'who is how far'],
    ['consumers remove billing', 'its place in the log, and its user'],
  ])
    .addCommand(addCommand(cli))
    .addCommand(listCommand(cli))
    .addCommand(removeCommand(cli));
}

function addCommand(cli: Cli): Command {
  return verb(
    cli,
    'add',
    'Make a durable pull consumer for a team, and a NATS user that may do nothing but read from it. What the team’s program needs is printed on stdout as variables of an environment, once.',
    [
      ['consumers add billing', 'the whole log, from its oldest event'],
      ['consumers add search --tables prices,public.tokens --ops insert,update,delete,read', 'some tables'],
      [`consumers add audit --subjects 'ev.*.*.delete' --since 7d`, 'NATS subjects, from a time on'],
    ],
  )
    .argument('<team>', 'small letters, digits, - and _')
    .value('--tables <list>', 'only rows of these tables: <schema>.<table>, or a name in "public"', tableNames)
    .value('--ops <list>', `only these operations: ${rowOps.join(', ')}`, ops)
    .value('--subjects <list>', 'only these NATS subjects, with wildcards: ev.public.*.insert', listOf(Boolean, 'NATS subjects'))
    .value('--from <seq>', 'begin at this sequence number, or at the oldest event: oldest (the default)', beginning.parse)
    .value('--since <time>', 'begin at the first event committed at this time or later: 2026-11-22T12:00:00Z, or 2h ago: 2h', moment.parse)
    .option('--new', 'begin with what comes next')
    .value('--ack-wait <duration>', 'send an event again when it is not acknowledged within (default: 1m)', ackWait.parse)
    .dataOption()
    .option('--json', 'print JSON instead')
    .does(async () => (await import('../actions/consumers.ts')).add);
}

function listCommand(cli: Cli): Command {
  return verb(cli, 'list', 'List the teams that read the log, and how far each is.', [
    ['consumers list', 'a table'],
    ['consumers list --json', 'a JSON array'],
  ])
    .dataOption()
    .option('--json', 'print a JSON array')
    .does(async () => (await import('../actions/consumers.ts')).list);
}

function removeCommand(cli: Cli): Command {
  return verb(cli, 'remove', 'Remove a team’s consumer, and with it its place in the log, and its user.', [
    ['consumers remove billing', 'asks first'],
    ['consumers remove billing --yes', 'does not ask'],
  ])
    .argument('<team>', 'as `consumers list` shows it')
    .option('--yes', 'do not ask')
    .dataOption()
    .does(async () => (await import('../actions/consumers.ts')).remove);
}

import type { Command } from 'commander';
import type { CopyOrder } from '../../pipeline/capture/log-record.ts';
import { count } from '../../pipeline/runtime/setting-types.ts';
import type { BackfillOptions } from '../actions/backfill.ts';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

const rate = count(1, 1_000_000_000);
const rateOrNone = count(0, 1_000_000_000);

/** `headwater backfill` */
export function backfillCommand(cli: Cli): Command {
  const command = verb(cli, 'backfill', 'Log the present rows of a table, as "read" events, while the stream goes on. Capture does it.', [
    ['backfill public.prices', 'one table; Ctrl-C ends only the watching'],
    [`backfill prices --where "chain = 'base'"`, 'some of its rows'],
    ['backfill --all --rate 2000', 'every table, at most 2,000 rows a second'],
    ['backfill pause prices', 'and later: backfill resume prices'],
    ['backfill --all --accept-gap', 'after a gap: every table, in a new epoch'],
  ])
    .argument('[table]', '<schema>.<table>, or a name in "public"')
    .option('--all', 'every captured table that has a primary key')
    .option('--where <condition>', 'only rows that meet this SQL condition on the columns of the table')
    .value('--rate <rows>', 'at most so many rows a second', rate.parse)
    .option('--no-wait', 'only ask for it, and return')
    .option('--accept-gap', 'go on over a gap in the log: what happened in it is lost, and a new epoch begins')
    .option('--json', 'print how it ended as a JSON object')
    .dataOption()
    .check(faultsOf)
    .does(async () => (await import('../actions/backfill.ts')).backfill);
  command.enablePositionalOptions();
  for (const order of ['pause', 'resume', 'cancel'] as const) command.addCommand(orderCommand(cli, order));
  return command.addCommand(listCommand(cli));
}

const orders = {
  pause: {
    summary: 'Pause backfills after the chunk that is under way. Others go on meanwhile; a restart of capture changes nothing.',
  },
  resume: { summary: 'Go on with paused backfills, from their last chunk.' },
  cancel: { summary: 'Give backfills up. What they have logged stays.' },
} as const;

function orderCommand(cli: Cli, order: CopyOrder['order']): Command {
  const { summary } = orders[order];
  const command = verb(cli, order, summary, [
    [`backfill ${order} public.prices`, 'one table'],
    [`backfill ${order} --all${order === 'resume' ? ' --rate 500' : ''}`, order === 'resume' ? 'all, slower' : 'all that are under way'],
  ])
    .argument('[table]', '<schema>.<table>, or a name in "public"')
    .option('--all', 'every table')
    .option('--json', 'print a JSON object')
    .dataOption();
  if (order === 'resume')
    command.value('--rate <rows>', 'at most so many rows a second from now on; 0: as many as there can be', rateOrNone.parse);
  return command
    .check((table: string | undefined, { all }: BackfillOptions) => targetFaults(table, all))
    .does(async () => (await import('../actions/backfill.ts')).giveOrder(order));
}

function listCommand(cli: Cli): Command {
  return verb(cli, 'list', 'List the copies of tables: those that are not done, or all.', [
    ['backfill list', 'what is under way, paused, cancelled or has failed'],
    ['backfill list --all --json', 'every table, as a JSON array'],
  ])
    .option('--all', 'those that are done too')
    .option('--json', 'print a JSON array')
    .dataOption()
    .does(async () => (await import('../actions/backfill.ts')).list);
}

function targetFaults(table: string | undefined, all: boolean | undefined): string[] {
  if (table === undefined && !all) return ['name a table, or give --all'];
  return table !== undefined && all ? ['give a table or --all, not both'] : [];
}

function faultsOf(table: string | undefined, options: BackfillOptions): readonly string[] {
  const faults = targetFaults(table, options.all);
  if (options.where !== undefined && options.all) faults.push('--where belongs to one table, not to --all');
  if (options.acceptGap && !options.all) faults.push('--accept-gap needs --all: a gap concerns every table');
  if (options.acceptGap && options.rate !== undefined)
    faults.push('--rate cannot be given with --accept-gap; `backfill resume --all --rate` sets it then');
  return faults;
}

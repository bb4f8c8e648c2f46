import type { Command } from 'commander';
import {
  followBackfills,
  listBackfills,
  orderBackfills,
  requestBackfill,
  type BackfillRequest,
  type Ordered,
} from '../../pipeline/capture/backfill-operations.ts';
import type { CopyOrder, CopyState } from '../../pipeline/capture/log-record.ts';
import type { Operation } from '../../pipeline/capture/operations.ts';
import { HeadwaterError, usage } from '../../pipeline/runtime/errors.ts';
import { count } from '../../pipeline/runtime/setting-types.ts';
import { endText, listText, orderText, progressText } from '../backfill-text.ts';
import { acceptGap, act } from '../capture-actions.ts';
import type { Cli } from '../cli.ts';
import type { Progress } from '../progress.ts';
import { verb } from '../verb.ts';

interface Common {
  readonly json?: boolean;
  readonly data?: string;
}

interface Options extends Common {
  readonly all?: boolean;
  readonly where?: string;
  readonly rate?: number;
  readonly wait?: boolean;
  readonly acceptGap?: boolean;
}

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
    .action((table: string | undefined, options: Options) => backfill(cli, table, options));
  command.enablePositionalOptions();
  for (const order of ['pause', 'resume', 'cancel'] as const) command.addCommand(orderCommand(cli, order));
  return command.addCommand(listCommand(cli));
}

async function backfill(cli: Cli, table: string | undefined, options: Options): Promise<void> {
  const faults = targetFaults(table, options.all);
  if (options.where !== undefined && options.all) faults.push('--where belongs to one table, not to --all');
  if (options.acceptGap && !options.all) faults.push('--accept-gap needs --all: a gap concerns every table');
  if (options.acceptGap && options.rate !== undefined)
    faults.push('--rate cannot be given with --accept-gap; `backfill resume --all --rate` sets it then');
  if (faults.length > 0) throw badArguments(faults, 'backfill');
  if (options.acceptGap) return cli.out.line(await act(cli, options.data, acceptGap));
  const request: BackfillRequest = { names: namesOf(table), where: options.where, rate: options.rate };
  const ended = await act(cli, options.data, async (operation, progress) => {
    const tables = await requestBackfill(operation, request);
    return options.wait === false ? tables : watch(cli, operation, progress, tables);
  });
  if (options.wait === false) return asked(cli, ended as readonly string[], options);
  await conclude(cli, ended as readonly CopyState[], options);
}

async function watch(cli: Cli, operation: Operation, progress: Progress, tables: readonly string[]): Promise<readonly CopyState[]> {
  try {
    return await followBackfills(operation, tables, (state, number, of) =>
      progress.show(`${of > 1 ? `(${number} of ${of}) ` : ''}${progressText(state)}`),
    );
  } catch (error) {
    progress.end();
    if (cli.signal.aborted)
      await cli.err.line('The backfill goes on without this command: `headwater backfill list` shows it, `pause` and `cancel` end it.');
    throw error;
  }
}

async function asked(cli: Cli, tables: readonly string[], { json }: Options): Promise<void> {
  if (json) return cli.out.line(JSON.stringify({ asked: tables }));
  const what = tables.length === 1 ? tables[0]! : `${tables.length} tables`;
  await cli.out.line(`Asked for: ${what}. \`headwater backfill list\` shows how far it is.`);
}

async function conclude(cli: Cli, states: readonly CopyState[], { json }: Options): Promise<void> {
  const rows = states.reduce((sum, state) => sum + state.rows, 0);
  const short = states.filter(({ state }) => state !== 'done' && state !== 'none');
  if (json) await cli.out.line(JSON.stringify({ tables: states, rows }));
  else {
    for (const state of states.length === 1 ? states : short) await cli.out.line(endText(state));
    if (states.length !== 1) await cli.out.line(`${states.length - short.length} tables: ${rows} rows are in the log.`);
  }
  if (short.length === 0) return;
  const named = short.map(({ table, state }) => `${table} is ${state}`);
  throw new HeadwaterError('backfill_incomplete', named.join('\n'), { hint: hintFor(short) });
}

function hintFor(short: readonly CopyState[]): string {
  const paused = short.find(({ state }) => state === 'paused');
  if (paused) return `headwater backfill resume ${paused.table}`;
  return short.some(({ state }) => state === 'failed') ? 'mend the cause, and ask again' : 'ask again, if it is still wanted';
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
  return command.action(async (table: string | undefined, options: Options) => {
    const faults = targetFaults(table, options.all);
    if (faults.length > 0) throw badArguments(faults, `backfill ${order}`);
    const ordered = await act(cli, options.data, (operation) => orderBackfills(operation, { order, rate: options.rate }, namesOf(table)));
    await obeyed(cli, order, ordered, options);
  });
}

async function obeyed(cli: Cli, order: CopyOrder['order'], ordered: readonly Ordered[], { json }: Options): Promise<void> {
  if (json) await cli.out.line(JSON.stringify({ tables: ordered.map(({ state, done }) => ({ ...state, carriedOut: done })) }));
  else {
    if (ordered.length === 0) await cli.out.line(`There is nothing to ${order}.`);
    for (const each of ordered) await cli.out.line(orderText(order, each));
  }
  const open = ordered.filter(({ done }) => !done);
  if (open.length === 0) return;
  throw new HeadwaterError('order_kept', `not carried out yet: ${order} ${open.map(({ state }) => state.table).join(', ')}`, {
    hint: 'start capture, if it is not running; the order is kept',
  });
}

function listCommand(cli: Cli): Command {
  return verb(cli, 'list', 'List the copies of tables: those that are not done, or all.', [
    ['backfill list', 'what is under way, paused, cancelled or has failed'],
    ['backfill list --all --json', 'every table, as a JSON array'],
  ])
    .option('--all', 'those that are done too')
    .option('--json', 'print a JSON array')
    .dataOption()
    .action(async ({ all, json, data }: Options) => {
      const states = (await act(cli, data, listBackfills)).filter(({ state }) => all || (state !== 'done' && state !== 'none'));
      if (json) return cli.out.line(JSON.stringify(states));
      if (states.length === 0) return cli.out.line('No backfill is under way.');
      await cli.out.line(listText(states, cli.out));
    });
}

function targetFaults(table: string | undefined, all: boolean | undefined): string[] {
  if (table === undefined && !all) return ['name a table, or give --all'];
  return table !== undefined && all ? ['give a table or --all, not both'] : [];
}

function badArguments(faults: readonly string[], path: string): HeadwaterError {
  return usage('bad_arguments', faults.join('\n'), `\`headwater ${path} --help\` shows what it takes`);
}

function namesOf(table: string | undefined): readonly string[] | undefined {
  return table === undefined ? undefined : [table.includes('.') ? table : `public.${table}`];
}

import {
  followBackfills,
  listBackfills,
  orderBackfills,
  requestBackfill,
  type BackfillRequest,
  type Ordered,
} from '../../pipeline/capture/backfill/operations.ts';
import type { CopyOrder, CopyState } from '../../pipeline/capture/log-record.ts';
import type { Operation } from '../../pipeline/capture/operations.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { endText, inLog, listText, orderText, progressText } from '../backfill-text.ts';
import { acceptGap, act } from './capture.ts';
import type { Cli } from '../cli.ts';
import type { Progress } from '../progress.ts';
import { plural } from '../progress-text.ts';

/** Of every verb below it. */
interface Common {
  readonly json?: boolean;
  readonly data?: string;
}

/** The options of `headwater backfill`. */
export interface BackfillOptions extends Common {
  readonly all?: boolean;
  readonly where?: string;
  readonly rate?: number;
  readonly wait?: boolean;
  readonly acceptGap?: boolean;
}

/** Asks capture for copies of tables, and shows how far they come. */
export async function backfill(cli: Cli, table: string | undefined, options: BackfillOptions): Promise<void> {
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
      progress.show(`${of > 1 ? `(${number} of ${of}) ` : ''}${progressText(state, cli.err.terminal)}`),
    );
  } catch (error) {
    progress.end();
    if (cli.signal.aborted)
      await cli.err.line('The backfill goes on without this command: `headwater backfill list` shows it, `pause` and `cancel` end it.');
    throw error;
  }
}

async function asked(cli: Cli, tables: readonly string[], { json }: BackfillOptions): Promise<void> {
  if (json) return cli.out.line(JSON.stringify({ asked: tables }));
  const what = tables.length === 1 ? tables[0]! : plural(tables.length, 'table');
  await cli.out.line(`Asked for: ${what}. \`headwater backfill list\` shows how far it is.`);
}

async function conclude(cli: Cli, states: readonly CopyState[], { json }: BackfillOptions): Promise<void> {
  const rows = states.reduce((sum, state) => sum + state.rows, 0);
  const short = states.filter(({ state }) => state !== 'done' && state !== 'none');
  if (json) await cli.out.line(JSON.stringify({ tables: states, rows }));
  else {
    for (const state of states.length === 1 ? states : short) await cli.out.line(endText(state));
    if (states.length !== 1) await cli.out.line(`${plural(states.length - short.length, 'table')}: ${inLog(rows)}.`);
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

/** The work of `pause`, `resume` and `cancel`. */
export function giveOrder(what: CopyOrder['order']): (cli: Cli, table: string | undefined, options: BackfillOptions) => Promise<void> {
  return async (cli, table, options) => {
    const ordered = await act(cli, options.data, (operation) =>
      orderBackfills(operation, { order: what, rate: options.rate }, namesOf(table)),
    );
    await obeyed(cli, what, ordered, options);
  };
}

async function obeyed(cli: Cli, order: CopyOrder['order'], ordered: readonly Ordered[], { json }: BackfillOptions): Promise<void> {
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

/** Lists copies. */
export async function list(cli: Cli, { all, json, data }: BackfillOptions): Promise<void> {
  const states = (await act(cli, data, listBackfills)).filter(
    ({ state, whole }) => all || whole?.state === 'failed' || (state !== 'done' && state !== 'none'),
  );
  if (json) return cli.out.line(JSON.stringify(states));
  if (states.length === 0) return cli.out.line('No backfill is under way.');
  await cli.out.line(listText(states, cli.out));
}

function namesOf(table: string | undefined): readonly string[] | undefined {
  return table === undefined ? undefined : [table.includes('.') ? table : `public.${table}`];
}

import { suggestion } from '../../../schemas/nearest.ts';
import type { PgClient } from '../../clients/postgres.ts';
import { pause, untilItWorks } from '../../runtime/backoff.ts';
import { HeadwaterError, refused, usage } from '../../runtime/errors.ts';
import { orAborted } from '../../runtime/tasks.ts';
import { describeTable } from '../../source/table-reader.ts';
import { TypeRegistry } from '../../source/types.ts';
import { checkCondition } from './condition.ts';
import { estimateTable } from './estimate.ts';
import { isLocked, notPublished } from './faults.ts';
import { Absence } from '../absence.ts';
import { findSlot } from '../database.ts';
import type { CopyOrder, CopyState, LogRecord } from '../log-record.ts';
import { pollMs, takenUpMs, withDatabase, withRecord, withServers, type Operation } from '../operations.ts';
import { findJoining } from '../publications.ts';
import { selectTables, type CapturedTable } from '../tables.ts';

/** What is to be copied. */
export interface BackfillRequest {
  /** `<schema>.<table>`; undefined: every captured table that has a primary key. */
  readonly names: readonly string[] | undefined;
  /** An SQL condition on the rows. */
  readonly where?: string | undefined;
  /** Most rows a second. */
  readonly rate?: number | undefined;
}

/** How far the copies that are followed have come: the one that is looked at, its number from 1, and of how many. */
export type Follower = (state: CopyState, number: number, of: number) => void;

/** A question that took this long, in ms, was held up by a server that was away. */
const heldUpMs = 2_000;

/** States of a copy that is to be gone on with. */
const underWay: ReadonlySet<CopyState['state']> = new Set(['pending', 'running', 'paused']);

/**
 * Asks capture to copy tables beside the stream; returns their names. What has been asked for already, in the same words, and is
 * not done, is not asked for again; an order to give it up that nobody has carried out yet is taken back.
 * @throws HeadwaterError `not_captured`, `no_primary_key`, `bad_condition` (usage), `backfill_under_way`, `not_published` (refused),
 * `table_locked`
 */
export function requestBackfill(operation: Operation, request: BackfillRequest): Promise<readonly string[]> {
  const { names, where, rate } = request;
  return withServers(operation, async (control, record) => {
    const tables = await tablesToCopy(control, operation, names);
    const copies = await record.copies();
    for (const { name } of tables) requireFree(copies.get(name), request);
    for (const table of tables) {
      const total = await estimate(control, operation, table, where);
      await takeBackOrder(record, table.name);
      await record.changeCopy(table.name, (known) => {
        requireFree(known, request);
        if (known && underWay.has(known.state)) return undefined;
        const before = known?.oid === table.oid ? wholeCopy(known, where) : {};
        return { table: table.name, oid: table.oid, state: 'pending', rows: 0, total, where, rate, ...before };
      });
    }
    return tables.map(({ name }) => name);
  });
}

/** What a new request has to keep of the copy of all rows. */
function wholeCopy({ state, where, again, whole, error }: CopyState, wanted: string | undefined): Pick<CopyState, 'again' | 'whole'> {
  if (again === true || (state === 'done' && where === undefined)) return { again: true };
  if (wanted === undefined) return {};
  if (where !== undefined) return whole ? { whole } : {};
  return state === 'failed' || state === 'cancelled' ? { whole: { state, error } } : {};
}

/** A backfill under way that copies something else, or is paused, is not replaced: its rows may be in the log nowhere else. */
function requireFree(known: CopyState | undefined, { where, rate }: BackfillRequest): void {
  if (!known || !underWay.has(known.state)) return;
  const { table, state } = known;
  if (state === 'paused')
    throw refused(
      'backfill_under_way',
      `a backfill of ${table} is paused`,
      `\`headwater backfill resume ${table}\` goes on with it, \`cancel\` gives it up`,
    );
  if (known.where === where && rate !== undefined && rate !== known.rate)
    throw refused(
      'backfill_under_way',
      `a backfill of ${table} is under way, ${known.rate === undefined ? 'without a rate' : `at ${known.rate} rows a second`}`,
      `\`headwater backfill resume ${table} --rate ${rate}\` changes its rate; without --rate it is followed as it is`,
    );
  if (known.where === where) return;
  const what = known.where === undefined ? 'of all its rows' : `of other rows (${known.where})`;
  throw refused(
    'backfill_under_way',
    `a backfill of ${table} ${what} is ${state === 'pending' ? 'asked for already' : 'under way'}`,
    `wait for it (\`headwater backfill list\`), or give it up: headwater backfill cancel ${table}`,
  );
}

/** Capture would carry it out when it starts, on what is asked for now. */
async function takeBackOrder(record: LogRecord, table: string): Promise<void> {
  const open = await record.noted(table);
  if (open?.order.order === 'pause')
    throw refused(
      'backfill_under_way',
      `a backfill of ${table} is to be paused when capture starts`,
      `\`headwater backfill resume ${table}\` takes that back`,
    );
  if (open?.order.order === 'cancel') await record.removeOrder(table, open.revision);
}

async function tablesToCopy(
  control: PgClient,
  { catalog, config, log }: Operation,
  names: readonly string[] | undefined,
): Promise<readonly CapturedTable[]> {
  const { tables, leftOut } = await selectTables(control, catalog);
  const joining = await joiningTables(control, config.publication, tables);
  if (!names) {
    const later = tables.filter(({ name, hasKey }) => hasKey && joining.has(name)).map(({ name }) => name);
    if (later.length > 0)
      log.warn({ tables: later }, 'changes of these tables are not captured yet: they are copied when capture is restarted');
    return tables.filter(({ name, hasKey }) => hasKey && !joining.has(name));
  }
  return names.map((name) => {
    const table = tables.find((candidate) => candidate.name === name);
    const reason = leftOut.find((other) => other.name === name)?.reason;
    const known = tables.map((other) => other.name);
    if (!table)
      throw usage(
        'not_captured',
        `${name} is not captured${reason ? `: ${reason}` : suggestion(name, known)}`,
        '`headwater backfill list --all` shows the tables that are',
      );
    if (!table.hasKey)
      throw usage(
        'no_primary_key',
        `${name} has no primary key by which its rows could be read in chunks (one with a generated column is none)`,
        'add one, or take a new snapshot: headwater resnapshot',
      );
    if (joining.has(name)) throw notPublished(name);
    return table;
  });
}

/** The names of tables whose changes are not captured yet. Before its first start capture has none, and copies them all then. */
async function joiningTables(control: PgClient, publication: string, tables: readonly CapturedTable[]): Promise<ReadonlySet<string>> {
  try {
    return new Set((await findJoining(control, publication, tables)).map(({ name }) => name));
  } catch (error) {
    if (error instanceof HeadwaterError && error.code === 'publication_missing') return new Set();
    throw error;
  }
}

/** Rows to copy, as the server expects. A fault in the condition is told here, before anything is asked for. */
async function estimate(
  control: PgClient,
  { catalog, config }: Operation,
  table: CapturedTable,
  where: string | undefined,
): Promise<number> {
  const readable = await describeTable(control, table, new TypeRegistry(), catalog, config.subject);
  try {
    if (where === undefined) return await estimateTable(control, readable);
    return await checkCondition(control, readable, where, config.backfillTimeout);
  } catch (error) {
    if (!isLocked(error)) throw error;
    // Capture counts when it can.
    if (where === undefined) return 0;
    throw new HeadwaterError('table_locked', `somebody has ${table.name} locked, so the condition cannot be checked`, {
      reaction: 'retry',
      hint: 'nothing was asked for: ask again when it is free',
      cause: error,
    });
  }
}

/**
 * Follows copies until each has come to an end, of whatever kind, and returns their states. Interrupted, they go on. A server that goes
 * away meanwhile is waited for.
 * @throws HeadwaterError `capture_away`, `backfill_gone`
 */
export function followBackfills(operation: Operation, tables: readonly string[], onProgress: Follower): Promise<readonly CopyState[]> {
  return withRecord(operation, async (record) => {
    const ended: CopyState[] = [];
    for (const [i, table] of tables.entries())
      ended.push(await follow(operation, record, table, (state) => onProgress(state, i + 1, tables.length)));
    return ended;
  });
}

async function follow(operation: Operation, record: LogRecord, table: string, onProgress: (state: CopyState) => void): Promise<CopyState> {
  const { signal } = operation;
  const absence = new Absence(() => ask('PostgreSQL', () => isStreaming(operation), operation), takenUpMs);
  let seen = '';
  for (;;) {
    const askedAt = performance.now();
    const state = await ask('NATS', () => record.copy(table), operation);
    // Capture has been without it for as long.
    if (performance.now() - askedAt > heldUpMs) absence.seen();
    if (!state) throw new HeadwaterError('backfill_gone', `the request for ${table} is gone from the log's record: a new epoch has begun`);
    if (state.state !== 'pending' && state.state !== 'running') return state;
    onProgress(state);
    const now = JSON.stringify(state);
    if (now !== seen) {
      seen = now;
      absence.seen();
    } else if (await absence.isLong())
      throw new HeadwaterError('capture_away', `capture is not running: ${table} is copied when it is`, {
        hint: 'start capture; the request is kept',
      });
    await pause(pollMs, signal);
    signal.throwIfAborted();
  }
}

/** Asks until the server answers; told to end, nobody waits for what is not answered. */
function ask<T>(what: string, attempt: () => Promise<T>, operation: Operation): Promise<T> {
  return orAborted(operation.signal, untilItWorks(what, attempt, operation));
}

/** Asked over a connection of its own: one that is kept would be lost with the server, and it is asked only when nothing moves. */
function isStreaming(operation: Operation): Promise<boolean> {
  return withDatabase(operation, async (control) => (await findSlot(control, operation.config.slot))?.activePid !== undefined);
}

/** Every copy that the log's record knows, in the order of the tables' names. */
export function listBackfills(operation: Operation): Promise<readonly CopyState[]> {
  return withRecord(operation, async (record) => sorted((await record.copies()).values()));
}

/**
 * A copy, and whether the order was taken away by capture: while that is away it is only noted. The copy may have come to its end
 * before, and its state is then another one than was ordered.
 */
export interface Ordered {
  readonly state: CopyState;
  readonly done: boolean;
}

/**
 * Orders copies to be paused, gone on with or given up, and waits until capture has done it.
 * @param names undefined: all that the order concerns
 * @throws HeadwaterError `no_backfill` (usage) when there is nothing of a name to pause, resume or cancel
 */
export function orderBackfills(
  operation: Operation,
  order: Omit<CopyOrder, 'table'>,
  names: readonly string[] | undefined,
): Promise<readonly Ordered[]> {
  return withRecord(operation, async (record) => {
    const copies = await record.copies();
    const orders = await record.orders();
    const open = sorted(copies.values())
      .filter((state) => concerns(order, state, orders.get(state.table)))
      .map(({ table }) => table);
    for (const name of names ?? []) if (!open.includes(name)) requireConcerned(order, name, copies, open);
    const concerned = names ?? open;
    // Before anything is ordered: an order is not given by a command that fails.
    const active = await isStreaming(operation);
    for (const table of concerned) await record.putOrder({ ...order, table });
    return Promise.all(concerned.map((table) => carriedOut(operation, record, table, active)));
  });
}

/** @param noted the order for this copy that nobody has carried out yet: the next one takes its place */
function concerns({ order, rate }: Omit<CopyOrder, 'table'>, { state }: CopyState, noted: CopyOrder | undefined): boolean {
  if (order === 'cancel') return underWay.has(state);
  if (order === 'pause') return state === 'pending' || state === 'running';
  return state === 'paused' || ((rate !== undefined || noted?.order === 'pause') && underWay.has(state));
}

function requireConcerned(
  { order }: Omit<CopyOrder, 'table'>,
  name: string,
  copies: ReadonlyMap<string, CopyState>,
  others: readonly string[],
): void {
  const state = copies.get(name);
  // By its name only: a first copy that has failed is tried again when capture starts, and then no more.
  if (order === 'cancel' && (state?.state === 'failed' || state?.whole?.state === 'failed')) return;
  const why = state ? `the backfill of ${name} is ${state.state}` : `there is no backfill of ${name}${suggestion(name, others)}`;
  throw usage('no_backfill', `nothing to ${order}: ${why}`, '`headwater backfill list` shows what there is');
}

async function carriedOut({ signal }: Operation, record: LogRecord, table: string, active: boolean): Promise<Ordered> {
  const until = performance.now() + takenUpMs;
  for (;;) {
    const open = await record.order(table);
    const state = await record.copy(table);
    if (!state) throw new HeadwaterError('backfill_gone', `the backfill of ${table} is gone from the log's record: a new epoch has begun`);
    if (!open || !active || performance.now() > until) return { state, done: open === undefined };
    await pause(pollMs, signal);
    signal.throwIfAborted();
  }
}

function sorted(states: Iterable<CopyState>): CopyState[] {
  return [...states].sort((a, b) => (a.table < b.table ? -1 : 1));
}

import type { Ordered } from '../pipeline/capture/backfill/operations.ts';
import type { CopyOrder, CopyState } from '../pipeline/capture/log-record.ts';
import type { Output } from './output.ts';
import { table } from './table.ts';
import { count, plural, shareText, time } from './progress-text.ts';

/** The rows are estimated: only the end is 100 %. */
const mostPercent = 99;

/** `1 row is in the log` */
export function inLog(rows: number): string {
  return plural(rows, 'row is in the log', 'rows are in the log');
}

/** One line on how far a copy has come: share, rows, speed, and how long it will take. */
export function progressText(state: CopyState, withBar: boolean): string {
  const { table: name, rows, read = rows, total = 0, speed, note } = state;
  if (note !== undefined) return `${name}: ${note}`;
  if (state.state === 'pending') return `${name}: waiting for capture, or for its turn`;
  const parts = [total > 0 ? `${count(read)} of about ${plural(total, 'row')}` : plural(read, 'row')];
  if (speed) parts.push(`${count(speed)} rows/s`);
  if (speed && total > read) parts.push(`${time((total - read) / speed)} left`);
  return total > 0 ? `${name} ${shareText(read / total, withBar, mostPercent)}, ${parts.join(', ')}` : `${name}: ${parts.join(', ')}`;
}

/** How a copy ended, as a sentence. */
export function endText({ table: name, state, rows, error }: CopyState): string {
  const logged = inLog(rows);
  if (state === 'done') return `${name}: ${logged}.`;
  if (state === 'none') return `${name}: ${error ?? 'its rows cannot be copied'}.`;
  if (state === 'failed') return `${name}: failed: ${error ?? 'no reason given'}.`;
  return `${name}: ${state}, ${logged}.`;
}

/** What an order has come to, as a sentence: the copy may have ended by itself before. */
export function orderText(order: CopyOrder['order'], { state: copy, done }: Ordered): string {
  const { table: name, state, rows } = copy;
  if (!done) return `${name}: noted; capture does it when it runs.`;
  const ended = state === 'done' || state === 'failed' || state === 'none';
  if (ended) return order === 'resume' ? endText(copy) : `${endText(copy)} There was nothing left to ${order}.`;
  return `${name}: ${order === 'resume' && state !== 'cancelled' ? 'goes on' : state}, ${inLog(rows)}.`;
}

/** The copies as columns of text. */
export function listText(states: readonly CopyState[], output: Output): string {
  const rows = states.map((state) => [
    state.table,
    state.state,
    shareOf(state),
    count(state.rows),
    limit(state),
    state.where ?? '',
    about(state),
  ]);
  return table(output, ['TABLE', 'STATE', 'READ', 'LOGGED', 'LIMIT', 'WHERE', ''], rows);
}

function about(state: CopyState): string {
  if (state.error !== undefined) return state.error;
  if (state.whole?.state === 'failed') return `the copy of all rows has failed: ${state.whole.error ?? 'no reason given'}`;
  if (state.note !== undefined) return state.note;
  const { speed, total = 0, rows, read = rows } = state;
  if (state.state !== 'running' || !speed) return '';
  return `${count(speed)} rows/s${total > read ? `, ${time((total - read) / speed)} left` : ''}`;
}

function shareOf({ state, total = 0, rows, read = rows }: CopyState): string {
  if (state === 'done') return '100 %';
  return total > 0 ? shareText(read / total, false, mostPercent) : count(read);
}

function limit({ rate }: CopyState): string {
  return rate === undefined ? '' : `${count(rate)} rows/s`;
}

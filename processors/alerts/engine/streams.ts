import { textOf } from '../../../schemas/filter.ts';
import { encodeRowKey } from '../../../schemas/row-key.ts';
import type { Row, RowOp, RowRecord } from './log-record.ts';
import type { Stream } from './stream.ts';

/** What an event is to the entities of a stream. */
export interface EntityEvent {
  /** The entity that there is no more. */
  readonly ended?: string;
  readonly present?: {
    readonly text: string;
    readonly key: Row;
    readonly row: Row;
    /** The row of before, if it was the same entity's. */
    readonly before: Row | undefined;
  };
}

const nothing: EntityEvent = {};

/** Which entities of the stream the event concerns. See SPEC.md, 2. */
export function entitiesOf(stream: Stream, op: RowOp, record: RowRecord): EntityEvent {
  return stream.groupBy ? byColumns(stream, stream.groupBy, record) : byKey(op, record);
}

function byKey(op: RowOp, { key, after, before }: RowRecord): EntityEvent {
  if (!key) return nothing;
  const text = keyTextOf(Object.values(key));
  if (op === 'delete') return { ended: text };
  if (!after) return nothing;
  const present = { text, key, row: after, before };
  const columns = Object.keys(key);
  if (!before || !columns.every((column) => Object.hasOwn(before, column))) return { present };
  const old = keyTextOf(columns.map((column) => before[column]));
  return old === text ? { present } : { ended: old, present: { ...present, before: undefined } };
}

function byColumns({ match }: Stream, columns: readonly string[], { after }: RowRecord): EntityEvent {
  if (!after) return nothing;
  const key = columns.map((column): [string, unknown] => [column, Object.hasOwn(after, column) ? after[column] : null]);
  if (key.some(([, value]) => value === null)) return nothing;
  for (const { column, values } of match) {
    const text = Object.hasOwn(after, column) ? textOf(after[column]) : undefined;
    if (text === undefined || !values.includes(text)) return nothing;
  }
  return { present: { text: keyTextOf(key.map(([, value]) => value)), key: Object.fromEntries(key), row: after, before: undefined } };
}

function keyTextOf(values: readonly unknown[]): string {
  return encodeRowKey(values.map((value) => textOf(value) ?? JSON.stringify(value)));
}

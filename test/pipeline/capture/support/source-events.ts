import { formatId } from '../../../../pipeline/source/position.ts';
import type { SourceEvent } from '../../../../pipeline/source/source.ts';

const filler = Buffer.alloc(2_000_000, 0x20);

export interface SourceEventFields {
  readonly lsn?: bigint;
  readonly index?: number;
  readonly xid?: number | undefined;
  readonly last?: boolean;
  readonly table?: string;
  /** Bytes that it has at least; only for what does not read them. */
  readonly size?: number;
  readonly body?: object;
}

/** An event as the source gives it, with an `id` that says its position. */
export function sourceEvent({ lsn = 1n, index = 1, xid, last = true, table, size, body }: SourceEventFields = {}): SourceEvent {
  const data = size === undefined ? Buffer.from(JSON.stringify({ v: 1, id: formatId({ lsn, index }), ...body })) : filler.subarray(0, size);
  return { subject: 'ev.public.t.insert', data, lsn, index, xid, last, table };
}

/** A transaction of `count` events, committed at `lsn`. */
export function transaction(lsn: bigint, count: number, fields: SourceEventFields = {}): SourceEvent[] {
  return Array.from({ length: count }, (_, i) =>
    sourceEvent({ xid: Number(lsn), ...fields, lsn, index: 2 * i + 1, last: i === count - 1 }),
  );
}

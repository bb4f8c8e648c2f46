import { eachMember } from '../../../schemas/raw-json.ts';
import type { Seq } from '../../log/event-log.ts';
import type { Key } from '../row-key.ts';

/** One event of a row. */
export interface Change {
  /** The event's. */
  readonly seq: Seq;
  readonly xid: number;
  /** The row's key before and after; undefined where there is no row. */
  readonly from: string | undefined;
  readonly to: string | undefined;
  /** The event, when it has only a part of the row: Postgres does not send large values again that have not changed. */
  readonly part: Uint8Array | undefined;
}

/** Parts of a row event in their raw text, which loses nothing. */
export interface RawEvent {
  readonly op: string | undefined;
  readonly key: string | undefined;
  readonly before: string | undefined;
  readonly unchanged: boolean;
}

/** The raw text of an event's key, in the Latin-1 view of its bytes; undefined where it has none. */
export function rawKeyOf(event: Uint8Array): string | undefined {
  return rawEvent(event).key;
}

/** The key that a raw text says. */
export function parsedKey(rawKey: string): Key {
  return JSON.parse(Buffer.from(rawKey, 'latin1').toString('utf8')) as Key;
}

/** A row's primary key as one string, from its raw text: two numbers that JavaScript cannot tell apart stay two. */
export function keyString(rawKey: string): string {
  const values: string[] = [];
  eachMember(rawKey, 0, ({ start, end }) => values.push(rawKey.slice(start, end)) > 0);
  return values.join();
}

/** What an event with this key says of its row. `data` is kept only if it has a part of the row. */
export function changeOf({ op, before, unchanged }: RawEvent, key: string, data: Uint8Array): Pick<Change, 'from' | 'to' | 'part'> {
  const to = keyString(key);
  return {
    from: op === 'insert' ? undefined : ((before === undefined ? undefined : oldKeyString(key, before)) ?? to),
    to: op === 'delete' ? undefined : to,
    // A copy: what it is a part of is much larger.
    part: unchanged ? Uint8Array.from(data) : undefined,
  };
}

/** The key of the row before; undefined when that does not have all of its columns. */
function oldKeyString(key: string, before: string): string | undefined {
  const old = new Map<string, string>();
  eachMember(before, 0, ({ name, start, end }) => old.set(name, before.slice(start, end)).size > 0);
  const values: string[] = [];
  const whole = eachMember(key, 0, ({ name }) => old.has(name) && values.push(old.get(name)!) > 0);
  return whole ? values.join() : undefined;
}

const unchangedMember = Buffer.from('"unchanged":[');

/** May be an event that has only a part of its row: a value may look so as well. */
export function mayBePart(data: Uint8Array): boolean {
  return Buffer.from(data.buffer, data.byteOffset, data.length).includes(unchangedMember);
}

/** Reads an event's parts: values are in the Latin-1 view of their bytes. */
export function rawEvent(data: Uint8Array): RawEvent {
  const view = Buffer.from(data.buffer, data.byteOffset, data.length).toString('latin1');
  const found: { op?: string; key?: string; before?: string; unchanged?: string } = {};
  eachMember(view, 0, ({ name, start, end }) => {
    if (name === 'op') found.op = view.slice(start + 1, end - 1);
    else if (name === 'key' || name === 'before' || name === 'unchanged') found[name] = view.slice(start, end);
    return true;
  });
  return { op: found.op, key: found.key, before: found.before, unchanged: found.unchanged !== undefined };
}

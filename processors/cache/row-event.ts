import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { encodeRowKey } from '../../schemas/row-key.ts';
import { eachMember, member, type Member, type Range } from '../../schemas/raw-json.ts';

/** The names of a row event's row: as it is now, and before an update that changed it. Both absent without a primary key. */
export interface RowNames {
  readonly key: string | undefined;
  readonly oldKey: string | undefined;
}

/** What the event calls its row. `mayMove`: the op is one that can change the key. Throws `bad_event` for what is no event. */
export function rowNames(data: Uint8Array, mayMove: boolean): RowNames {
  const bytes = bufferOf(data);
  const view = bytes.toString('latin1');
  // The text may also stand in a value; that it is nowhere is quickly found.
  const moving = mayMove && view.includes('"before":');
  const plain = moving ? undefined : plainKey(view);
  if (plain !== undefined) return { key: plain, oldKey: undefined };
  const columns = keyColumns(view);
  if (!columns) return { key: undefined, oldKey: undefined };
  const key = encodeRowKey(columns.map((column) => valueAt(bytes, column)));
  return { key, oldKey: moving ? keyBefore(bytes, view, columns) : undefined };
}

/**
 * The key of nearly all events, without looking at the rest of them: in front of the key there are only strings, so the
 * first brace is the key's when `,"key":` stands before it. Undefined when it is not that simple.
 */
function plainKey(view: string): string | undefined {
  const start = view.indexOf('{', 1);
  if (start < 7 || !view.startsWith(',"key":', start - 7)) return undefined;
  const end = view.indexOf('}', start);
  const text = end < 0 ? '\\' : view.slice(start, end);
  // Escapes, and characters of several bytes.
  if (/[\\\x80-\xff]/.test(text)) return undefined;
  const values: string[] = [];
  for (let at = 1; at < text.length;) {
    const value = text.indexOf('":', at) + 2;
    if (value < 4) return undefined;
    const isText = text[value] === '"';
    const stop = isText ? text.indexOf('"', value + 1) : text.indexOf(',', value);
    if (isText && stop < 0) return undefined;
    const past = stop < 0 ? text.length : isText ? stop + 1 : stop;
    if (past < text.length && text[past] !== ',') return undefined;
    if (!isText && !/^[\w.+-]+$/.test(text.slice(value, past))) return undefined;
    values.push(isText ? text.slice(value + 1, stop) : text.slice(value, past));
    at = past + 1;
  }
  return values.length > 0 ? encodeRowKey(values) : undefined;
}

/** The value of a member of the event, as it stands there. */
export function rawMember(data: Uint8Array, name: string): Buffer | undefined {
  const bytes = bufferOf(data);
  const range = member(bytes.toString('latin1'), 0, name);
  return range && bytes.subarray(range.start, range.end);
}

/** The columns of the key; undefined without one. */
function keyColumns(view: string): readonly Member[] | undefined {
  let key: Range | undefined;
  const whole = eachMember(view, 0, (one) => {
    if (one.name === 'key') key = one;
    return !key;
  });
  if (!key && whole) return undefined;
  const columns: Member[] = [];
  if (!key || !eachMember(view, key.start, (column) => columns.push(column) > 0) || columns.length === 0)
    throw new HeadwaterError('bad_event', 'the bytes are not an event of a row');
  return columns;
}

function keyBefore(bytes: Buffer, view: string, columns: readonly { readonly name: string }[]): string | undefined {
  const before = member(view, 0, 'before');
  if (!before) return undefined;
  const values = columns.map(({ name }) => member(view, before.start, name));
  return values.every((value) => value !== undefined) ? encodeRowKey(values.map((value) => valueAt(bytes, value))) : undefined;
}

function valueAt(bytes: Buffer, { start, end }: Range): string {
  const text = bytes.toString('utf8', start, end);
  if (!text.startsWith('"')) return text;
  return text.includes('\\') ? (JSON.parse(text) as string) : text.slice(1, -1);
}

/** The same bytes as a Buffer. */
export function bufferOf(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

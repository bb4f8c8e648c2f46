import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { encodeRowKey } from '../../schemas/row-key.ts';
import { member, members, type Range } from './raw-json.ts';

/** Enough of an event to reach past its key, nearly always. */
const headBytes = 512;

/** The names of a row event's row: as it is now, and before an update that changed it. Both absent without a primary key. */
export interface RowNames {
  readonly key: string | undefined;
  readonly oldKey: string | undefined;
}

/** What the event calls its row. `mayMove`: the op is one that can change the key. Throws `bad_event` for what is no event. */
export function rowNames(data: Uint8Array, mayMove: boolean): RowNames {
  const bytes = bufferOf(data);
  // `before` as text is rare, and finding that it is nowhere is cheap.
  const moving = mayMove && bytes.includes('"before":');
  let view = bytes.toString('latin1', 0, moving ? bytes.length : headBytes);
  let range = view.startsWith('{') ? keyRange(view) : undefined;
  if (range === 'cut' && view.length < bytes.length) {
    view = bytes.toString('latin1');
    range = keyRange(view);
  }
  if (range === undefined || range === 'cut') throw new HeadwaterError('bad_event', 'the bytes are not an event of a row');
  if (range === 'none') return { key: undefined, oldKey: undefined };
  const columns = [...members(view, range.start)];
  if (columns.length === 0) throw new HeadwaterError('bad_event', 'the key of the event has no columns');
  const key = encodeRowKey(columns.map((column) => valueAt(bytes, column)));
  return { key, oldKey: moving ? keyBefore(bytes, view, columns) : undefined };
}

/** The value of a member of the event, as it stands there. */
export function rawMember(data: Uint8Array, name: string): Buffer | undefined {
  const bytes = bufferOf(data);
  const range = member(bytes.toString('latin1'), 0, name);
  return range && bytes.subarray(range.start, range.end);
}

/** `key` comes directly after `table`; without it `after`, `before` or `tx` does. */
function keyRange(view: string): Range | 'none' | 'cut' | undefined {
  for (const found of members(view, 0)) {
    if (found.name === 'key') return found;
    if (found.name === 'after' || found.name === 'before' || found.name === 'tx' || found.name === 'at') return 'none';
  }
  return 'cut';
}

function keyBefore(bytes: Buffer, view: string, columns: readonly { readonly name: string }[]): string | undefined {
  const before = member(view, 0, 'before');
  if (!before) return undefined;
  const found = new Map<string, Range>();
  for (const value of members(view, before.start)) found.set(value.name, value);
  const values = columns.map(({ name }) => found.get(name));
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

import type { RowChange } from './fold.ts';
import { bufferOf } from './row-event.ts';

/**
 * Rows on their way to Redis: all of a commit's rows of a table in one argument, since thousands of arguments would cost more than what is in them. Each row is its key, its sequence
 * and its event (empty: deleted), each behind its length in four bytes (little-endian).
 */

/** Lua: takes the row at `at` out of `rows` (Redis' own library `struct`). */
export const unpackRow = `key, seq, event, at = struct.unpack('<I4c0I4c0I4c0', rows, at)`;

const lengthBytes = 4;
/** Of `Number.MAX_SAFE_INTEGER`. */
const mostDigits = 16;

/** @returns the rows one behind the other */
export function packRows(rows: ReadonlyMap<string, RowChange>): Buffer {
  let most = 0;
  for (const [key, { event }] of rows) most += 3 * lengthBytes + key.length + mostDigits + (event?.length ?? 0);
  const packed = Buffer.allocUnsafe(most);
  let at = 0;
  // Encoded keys are ASCII, as digits are.
  const putText = (text: string): void => {
    packed.writeUInt32LE(text.length, at);
    at += lengthBytes;
    at += packed.write(text, at, 'latin1');
  };
  for (const [key, { seq, event }] of rows) {
    putText(key);
    putText(String(seq));
    packed.writeUInt32LE(event?.length ?? 0, at);
    at += lengthBytes;
    if (event) at += bufferOf(event).copy(packed, at);
  }
  return packed.subarray(0, at);
}

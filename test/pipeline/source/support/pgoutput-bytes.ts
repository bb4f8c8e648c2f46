/** Parts of protocol messages, written by hand: numbers are big-endian, text is UTF-8. */
export function bytes(...parts: readonly (string | Buffer)[]): Buffer {
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
}

export function int16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16BE(value);
  return buffer;
}

export function int32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value | 0);
  return buffer;
}

export function int64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(value);
  return buffer;
}

export function cstring(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/** A column's value: SQL NULL, a large value that was not resent, or its text. */
export type Cell = null | 'unchanged' | { readonly text: string };

export function tupleData(cells: readonly Cell[]): Buffer {
  const columns = cells.map((cell) => {
    if (cell === null) return Buffer.from('n');
    if (cell === 'unchanged') return Buffer.from('u');
    const text = Buffer.from(cell.text);
    return bytes('t', int32(text.length), text);
  });
  return bytes(int16(cells.length), ...columns);
}

/** A message of the frontend/backend protocol: its type, its length, its body. */
export function message(type: string, ...body: readonly (string | Buffer)[]): Buffer {
  const content = bytes(...body);
  return bytes(type, int32(content.length + 4), content);
}

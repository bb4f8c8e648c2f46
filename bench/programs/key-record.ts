/** What the yardstick sends for each change: the operation and the key, in nine bytes. */
export const recordBytes = 9;

export function keyRecord(insert: boolean, id: number): Buffer {
  const record = Buffer.alloc(recordBytes);
  record[0] = insert ? 1 : 0;
  record.writeBigUInt64BE(BigInt(id), 1);
  return record;
}

export function readKeyRecord(source: Buffer, at: number): { insert: boolean; id: number } {
  return { insert: source[at] === 1, id: Number(source.readBigUInt64BE(at + 1)) };
}

import type { JsonWriter } from './json-writer.ts';

/** Writes one value, given as Postgres's text form in UTF-8 at `source[start..end)`, as JSON. */
export type ValueEncoder = (out: JsonWriter, source: Buffer, start: number, end: number) => void;

const char = (text: string): number => text.charCodeAt(0);
const [dash, space, zero, tee, cee, plus] = [char('-'), char(' '), char('0'), char('t'), char('C'), char('+')];

export const stringValue: ValueEncoder = (out, source, start, end) => out.string(source, start, end);

const boolValue: ValueEncoder = (out, source, start) => out.ascii(source[start] === tee ? 'true' : 'false');

const rawValue: ValueEncoder = (out, source, start, end) => out.raw(source, start, end);

/** Integers that every JSON reader can hold. */
const integerValue: ValueEncoder = rawValue;

/** float4 and float8: Postgres prints the shortest exact form, which is valid JSON unless it is NaN, an infinity or -0. */
const floatValue: ValueEncoder = (out, source, start, end) => {
  const first = source[start] === dash ? start + 1 : start;
  const digit = source[first]! >= zero && source[first]! <= zero + 9;
  const negativeZero = first > start && end === first + 1 && source[first] === zero;
  if (digit && !negativeZero) out.raw(source, start, end);
  else out.string(source, start, end);
};

/** `2016-11-04 13:51:30.12+00` → `2016-11-04T13:51:30.12Z`. Infinities, BC and years over 9999 stay as Postgres prints them. */
const timestampValue: ValueEncoder = (out, source, start, end) => {
  if (!isPlainTimestamp(source, start, end)) return out.string(source, start, end);
  out.byte(0x22);
  out.raw(source, start, start + 10);
  out.ascii('T');
  const utc = source[end - 3] === plus;
  out.raw(source, start + 11, utc ? end - 3 : end);
  out.ascii(utc ? 'Z"' : '"');
};

function isPlainTimestamp(source: Buffer, start: number, end: number): boolean {
  return end - start >= 19 && source[start + 4] === dash && source[start + 10] === space && source[end - 1] !== cee;
}

/** bytea comes as `\x` and hex digits (`bytea_output = hex`). */
const byteaValue: ValueEncoder = (out, source, start, end) => {
  const bytes = Buffer.from(source.toString('latin1', start + 2, end), 'hex');
  out.byte(0x22);
  out.raw(Buffer.from(bytes.toString('base64'), 'latin1'));
  out.byte(0x22);
};

/** bytea's. */
export const byteaOid = 17;

/** The types whose JSON form is not a string, by OID; the OIDs of built-in types never change (pg_type.dat). */
export const builtinValues: ReadonlyMap<number, ValueEncoder> = new Map([
  [16, boolValue],
  [byteaOid, byteaValue],
  [21, integerValue], // int2
  [23, integerValue], // int4
  [26, integerValue], // oid
  [28, integerValue], // xid
  [114, rawValue], // json
  [700, floatValue],
  [701, floatValue],
  [1114, timestampValue],
  [1184, timestampValue],
  [3802, rawValue], // jsonb
]);

/** json and jsonb. */
export const jsonTypes: ReadonlySet<number> = new Set([114, 3802]);

/** Is this json text the JSON `null`? */
export function isJsonNull(source: Buffer, start: number, end: number): boolean {
  return end - start >= 4 && end - start < 64 && source.toString('latin1', start, end).trim() === 'null';
}

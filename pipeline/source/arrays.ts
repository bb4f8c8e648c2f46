import type { JsonWriter } from './json-writer.ts';
import type { ValueEncoder } from './values.ts';

const char = (text: string): number => text.charCodeAt(0);
const [open, close, quote, backslash, bound] = [char('{'), char('}'), char('"'), char('\\'), char('[')];

/**
 * Arrays as JSON arrays of the element's mapping, from the text form of `array_out` (PostgreSQL manual, 8.15.6). Arrays with
 * bounds other than 1 begin with `[l:u]=` and stay a string, since a JSON array could not say the bounds.
 */
export function arrayValue(element: ValueEncoder, delimiter: string): ValueEncoder {
  const separator = char(delimiter);
  return (out, source, start, end) => {
    if (source[start] === bound) return out.string(source, start, end);
    writeArray({ out, source, end, element, separator }, start);
  };
}

interface Scan {
  readonly out: JsonWriter;
  readonly source: Buffer;
  readonly end: number;
  readonly element: ValueEncoder;
  readonly separator: number;
}

/** Writes the array that opens at `at` and returns the position after its closing brace. */
function writeArray(scan: Scan, at: number): number {
  const { out, source, separator } = scan;
  out.ascii('[');
  at++;
  while (source[at] !== close) {
    at = source[at] === open ? writeArray(scan, at) : source[at] === quote ? writeQuoted(scan, at + 1) : writePlain(scan, at);
    if (source[at] === separator) {
      out.ascii(',');
      at++;
    } else if (source[at] !== close) throw new Error(`malformed array text at byte ${at}`);
  }
  out.ascii(']');
  return at + 1;
}

function writePlain({ out, source, end, element, separator }: Scan, start: number): number {
  let at = start;
  let escaped = false;
  while (at < end && source[at] !== separator && source[at] !== close) {
    if (source[at] === backslash) {
      escaped = true;
      at++;
    }
    at++;
  }
  if (escaped) writeUnescaped(out, element, source, start, at);
  else if (at - start === 4 && /^null$/i.test(source.toString('latin1', start, at))) out.ascii('null');
  else element(out, source, start, at);
  return at;
}

function writeQuoted({ out, source, element }: Scan, start: number): number {
  let at = start;
  let escaped = false;
  while (source[at] !== quote) {
    if (at >= source.length) throw new Error('malformed array text: a quote is not closed');
    if (source[at] === backslash) {
      escaped = true;
      at++;
    }
    at++;
  }
  if (escaped) writeUnescaped(out, element, source, start, at);
  else element(out, source, start, at);
  return at + 1;
}

function writeUnescaped(out: JsonWriter, element: ValueEncoder, source: Buffer, start: number, end: number): void {
  const bytes = Buffer.allocUnsafe(end - start);
  let length = 0;
  for (let at = start; at < end; at++) {
    if (source[at] === backslash) at++;
    bytes[length++] = source[at]!;
  }
  element(out, bytes, 0, length);
}

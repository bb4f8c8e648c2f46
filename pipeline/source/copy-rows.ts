import { columnKind, Tuple } from './pgoutput.ts';

const [newline, tab, backslash, capitalN] = [0x0a, 0x09, 0x5c, 0x4e];
const escapes: Readonly<Record<number, number>> = { 0x62: 0x08, 0x66: 0x0c, 0x6e: 0x0a, 0x72: 0x0d, 0x74: 0x09, 0x76: 0x0b };

/**
 * Splits the text format of COPY (PostgreSQL manual, COPY, "Text Format") into rows. A newline in the bytes always ends a row,
 * since one inside a value is escaped. Values are unescaped in place: they only get shorter.
 */
export class CopyRows {
  readonly #tuple = new Tuple();
  #rest: Buffer[] = [];

  /** Calls `each` for every row that is now complete; the tuple is only valid during the call. */
  feed(chunk: Buffer, each: (row: Tuple) => void): void {
    const lastEnd = chunk.lastIndexOf(newline);
    if (lastEnd < 0) {
      this.#rest.push(chunk);
      return;
    }
    const source = this.#rest.length === 0 ? chunk : Buffer.concat([...this.#rest, chunk]);
    const end = source.length - (chunk.length - lastEnd);
    let at = 0;
    while (at <= end) {
      at = this.#row(source, at);
      each(this.#tuple);
    }
    this.#rest = at < source.length ? [source.subarray(at)] : [];
  }

  /** Reads one row and returns the position after its newline. */
  #row(source: Buffer, at: number): number {
    const tuple = this.#tuple;
    tuple.source = source;
    let column = 0;
    for (;;) {
      const start = at;
      let write = -1;
      let isNull = false;
      while (source[at] !== tab && source[at] !== newline) {
        let byte = source[at]!;
        if (byte === backslash) {
          const escaped = source[++at]!;
          if (escaped === capitalN) isNull = true;
          if (write < 0) write = at - 1;
          byte = escapes[escaped] ?? escaped;
        }
        at++;
        if (write >= 0) source[write++] = byte;
      }
      tuple.kinds[column] = isNull ? columnKind.null : columnKind.text;
      tuple.starts[column] = start;
      tuple.ends[column] = write >= 0 ? write : at;
      column++;
      if (source[at++] === newline) break;
    }
    tuple.count = column;
    return at;
  }
}

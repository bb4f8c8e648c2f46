import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import { encodeToken } from '../../schemas/subjects.ts';
import { JsonWriter } from './json-writer.ts';
import { columnKind, oldRow, type LogicalMessage, type Tuple } from './pgoutput.ts';
import type { Relation, RowOp } from './relation.ts';
import { isJsonNull } from './values.ts';

/** A NATS server closes the connection over a subject of more than 4 KB with its line. */
const maxTokenBytes = 512;
const noColumns: ReadonlySet<number> = new Set();
const comma = 0x2c;
const closeBrace = 0x7d;

/** What stands between the parts of a row event. */
const text = {
  key: Buffer.from(',"key":{'),
  after: Buffer.from(',"after":{'),
  before: Buffer.from(',"before":{'),
  last: Buffer.from(',"last":true'),
  null: Buffer.from('null'),
} as const;

/** A row change as it came from Postgres: its tuples are views that the next message overwrites. */
export interface Change {
  readonly relation: Relation;
  readonly op: RowOp;
  readonly before: Tuple | undefined;
  /** `oldRow.key` or `oldRow.full` when there is a `before`. */
  readonly oldKind: number;
  readonly after: Tuple | undefined;
}

/**
 * Writes events as the bytes that every reader will get. An event is written up to its `tx` member when its change arrives,
 * and ended by `end` when it is known whether another event of its transaction follows.
 */
export class EventEncoder {
  readonly #out = new JsonWriter();
  readonly #limit: number;
  #idPrefix = Buffer.alloc(0);
  #tail = Buffer.alloc(0);
  #txPrefix: Buffer | undefined;

  /** @param limit bytes that an event may have; larger ones lose columns, which are then named in `omitted` */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Begins the events of one LSN; `at` is their commit time, `xid` is undefined outside transactions. */
  begin(lsnHex: string, xid: number | undefined, at: string): void {
    this.#idPrefix = Buffer.from(`{"v":1,"id":"${lsnHex}.`);
    this.#tail = Buffer.from(`${xid === undefined ? '' : '}'},"at":"${at}"}`);
    this.#txPrefix = xid === undefined ? undefined : Buffer.from(`,"tx":{"xid":${xid},"idx":`);
  }

  /** Ends the event that was written last and returns its bytes. */
  end(last: boolean): Buffer {
    if (last && this.#txPrefix) this.#out.raw(text.last);
    this.#out.raw(this.#tail);
    return this.#out.take();
  }

  /** Writes a row change. One that is too large loses its largest columns, one after the other, until it fits. */
  change(index: number, change: Change, idx: number): void {
    this.#changeWithout(index, change, idx, noColumns);
    let excess = this.#excess();
    if (excess <= 0) return;
    const omitted = new Set<number>();
    const candidates = omittable(change);
    while (excess > 0 && omitted.size < candidates.length) {
      for (const { column, gain } of candidates.slice(omitted.size)) {
        if (excess <= 0) break;
        omitted.add(column);
        excess -= gain;
      }
      this.#out.truncate(0);
      this.#changeWithout(index, change, idx, omitted);
      excess = this.#excess();
    }
  }

  /** Bytes by which the event, once ended, is larger than it may be. */
  #excess(): number {
    return this.#out.length + text.last.length + this.#tail.length - this.#limit;
  }

  /** Puts something else in the place of what is written of the event; `make` gets it without its end, and the bytes that there may be. */
  replace(make: (written: Buffer, limit: number) => Buffer): void {
    const written = Buffer.from(this.#out.take());
    this.#out.raw(make(written, this.#limit - this.#tail.length));
  }

  schema(index: number, relation: Relation, idx: number): void {
    this.#head(index);
    this.#out.ascii('","type":"schema","relation":');
    this.#out.text(relation.name);
    this.#out.ascii(',"columns":');
    this.#out.raw(Buffer.from(relation.columnsJson));
    this.#tx(idx);
  }

  tick(index: number, idx: number): void {
    this.#head(index);
    this.#out.ascii('","type":"tick"');
    this.#tx(idx);
  }

  /** A logical message of the application's; content too large for the log is named in `omitted`. */
  message(index: number, message: LogicalMessage, idx: number): void {
    const { content } = message;
    // A prefix has no limit in Postgres; a character takes six bytes at most.
    const prefix = message.prefix.slice(0, Math.floor(this.#limit / 12));
    this.#head(index);
    this.#out.ascii('","type":"message","prefix":');
    this.#out.text(prefix);
    const utf8 = isUtf8(content);
    const start = this.#out.length;
    this.#out.ascii(',"content":');
    if (utf8) this.#out.string(content);
    else this.#out.ascii(`"${content.toString('base64')}"`);
    if (this.#out.length + 256 > this.#limit) {
      this.#out.truncate(start);
      this.#out.ascii(',"omitted":["content"]');
    }
    this.#out.ascii(`,"encoding":"${utf8 ? 'utf8' : 'base64'}"`);
    this.#tx(idx);
  }

  mark(index: number, name: string, data: object): void {
    this.#head(index);
    this.#out.ascii('","type":"mark","mark":');
    this.#out.text(name);
    this.#out.ascii(',"data":');
    this.#out.raw(Buffer.from(JSON.stringify(data)));
    this.#tx(0);
  }

  #head(index: number): void {
    this.#out.raw(this.#idPrefix);
    this.#out.hex8(index);
  }

  #tx(idx: number): void {
    if (!this.#txPrefix) return;
    this.#out.raw(this.#txPrefix);
    this.#out.decimal(idx);
  }

  #changeWithout(index: number, change: Change, idx: number, omitted: ReadonlySet<number>): void {
    const { relation, op, before, after, oldKind } = change;
    this.#head(index);
    this.#out.raw(relation.heads[op]);
    const fullBefore = oldKind === oldRow.full ? before : undefined;
    this.#key(relation, after ?? before, after ? fullBefore : undefined);
    if (after) this.#row(text.after, relation, after, fullBefore, omitted, false);
    if (before) this.#row(text.before, relation, before, undefined, omitted, oldKind === oldRow.key);
    if (after?.partial && !fullBefore) this.#names(',"unchanged":[', relation, (i) => after.kinds[i] === columnKind.unchanged);
    if (omitted.size > 0) this.#names(',"omitted":[', relation, (i) => omitted.has(i));
    const row = after ?? before;
    if (row && relation.hasJson) this.#names(',"jsonNull":[', relation, (i) => isJsonNullColumn(relation, row, i));
    this.#tx(idx);
  }

  /** The key is left out when the row does not carry all of it (an old row by another unique index). */
  #key(relation: Relation, row: Tuple | undefined, old: Tuple | undefined): void {
    if (!row || relation.key.length === 0) return;
    const out = this.#out;
    const start = out.length;
    out.raw(text.key);
    for (let n = 0; n < relation.key.length; n++) {
      const i = relation.key[n]!;
      const source = row.kinds[i] === columnKind.unchanged && old ? old : row;
      if (source.kinds[i] !== columnKind.text) return out.truncate(start);
      if (n > 0) out.byte(comma);
      writeColumn(out, relation, source, i);
    }
    out.byte(closeBrace);
  }

  /** The columns of one row; values that were not resent come from the old row where there is one. */
  #row(opening: Buffer, relation: Relation, row: Tuple, old: Tuple | undefined, omitted: ReadonlySet<number>, identityOnly: boolean): void {
    const out = this.#out;
    out.raw(opening);
    let first = true;
    for (let i = 0; i < row.count; i++) {
      const column = relation.columns[i]!;
      if (column.excluded || (identityOnly && !column.identity) || (omitted.size > 0 && omitted.has(i))) continue;
      const source = row.kinds[i] === columnKind.unchanged ? old : row;
      if (!source || source.kinds[i] === columnKind.unchanged) continue;
      if (!first) out.byte(comma);
      first = false;
      writeColumn(out, relation, source, i);
    }
    out.byte(closeBrace);
  }

  /** A member that lists column names, written only if there are any. */
  #names(opening: string, relation: Relation, test: (i: number) => boolean): void {
    let written = 0;
    for (let i = 0; i < relation.columns.length; i++) {
      if (relation.columns[i]!.excluded || !test(i)) continue;
      this.#out.ascii(written++ === 0 ? opening : ',');
      this.#out.text(relation.columns[i]!.name);
    }
    if (written > 0) this.#out.ascii(']');
  }
}

/** One row as a JSON object: what stands in an event as `after`. */
export function encodeRow(relation: Relation, row: Tuple): Buffer {
  const out = new JsonWriter();
  out.ascii('{');
  let first = true;
  for (const [i, column] of relation.columns.entries()) {
    if (column.excluded) continue;
    if (!first) out.byte(comma);
    first = false;
    writeColumn(out, relation, row, i);
  }
  out.ascii('}');
  return out.take();
}

function writeColumn(out: JsonWriter, relation: Relation, row: Tuple, i: number): void {
  const column = relation.columns[i]!;
  out.raw(column.label);
  if (row.kinds[i] === columnKind.null) out.raw(text.null);
  else column.type.encode(out, row.source, row.starts[i]!, row.ends[i]!);
}

function isJsonNullColumn(relation: Relation, row: Tuple, i: number): boolean {
  return relation.columns[i]!.type.json && row.kinds[i] === columnKind.text && isJsonNull(row.source, row.starts[i]!, row.ends[i]!);
}

/** The columns that an event can do without, largest first, and the bytes that are gained by each. */
function omittable({ relation, before, after }: Change): readonly { readonly column: number; readonly gain: number }[] {
  const sizeIn = (row: Tuple | undefined, i: number): number => (row && i < row.count ? encodedSize(relation, row, i) : 0);
  return relation.columns
    .map((column, i) => {
      // What is left out is named, in as many bytes as its label has.
      const gain = column.excluded ? 0 : sizeIn(before, i) + sizeIn(after, i) - column.label.length;
      return { column: i, gain };
    })
    .filter(({ column, gain }) => gain > 0 && !relation.key.includes(column))
    .sort((a, b) => b.gain - a.gain);
}

/** Bytes of a column in a row: with label and comma, or none where its value was not sent. */
function encodedSize(relation: Relation, row: Tuple, i: number): number {
  const column = relation.columns[i]!;
  if (row.kinds[i] === columnKind.unchanged) return 0;
  if (row.kinds[i] === columnKind.null) return column.label.length + 5;
  const measure = new JsonWriter();
  column.type.encode(measure, row.source, row.starts[i]!, row.ends[i]!);
  return column.label.length + measure.length + 1;
}

/** The last token of a message's subject: its prefix, or a digest of one that is too long for a subject; `_` for none. */
export function messageToken(prefix: string): string {
  const token = encodeToken(prefix);
  if (Buffer.byteLength(token) > maxTokenBytes) return `sha256-${createHash('sha256').update(prefix).digest('hex')}`;
  return token || '_';
}

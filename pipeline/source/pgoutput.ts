/**
 * The messages of pgoutput, protocol version 1 (PostgreSQL manual, "Logical Replication Message Formats"). Decoding copies
 * nothing: a tuple is the places of its columns in the buffer it came in.
 */
export const tag = {
  begin: 0x42, // B
  commit: 0x43, // C
  origin: 0x4f, // O
  relation: 0x52, // R
  type: 0x59, // Y
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  truncate: 0x54, // T
  message: 0x4d, // M
} as const;

/** How a column came: SQL NULL, an unchanged large value that was not sent, or text. */
export const columnKind = { null: 0x6e, unchanged: 0x75, text: 0x74 } as const;

/** How an old row came: only its key (replica identity), or whole. */
export const oldRow = { key: 0x4b, full: 0x4f } as const;

/** The places of a row's columns in a buffer. Reused from row to row. */
export class Tuple {
  source: Buffer = Buffer.alloc(0);
  count = 0;
  kinds: number[] = [];
  starts: number[] = [];
  ends: number[] = [];
  /** Whether any column came without its large, unchanged value. */
  partial = false;

  /** Reads a TupleData at `at`; returns the position after it. */
  read(source: Buffer, at: number): number {
    this.source = source;
    this.count = source.readUInt16BE(at);
    this.partial = false;
    at += 2;
    for (let i = 0; i < this.count; i++) {
      const kind = source[at++]!;
      let length = 0;
      if (kind === columnKind.text) {
        length = source.readInt32BE(at);
        at += 4;
      } else if (kind === columnKind.unchanged) this.partial = true;
      else if (kind !== columnKind.null) throw new Error(`pgoutput: unknown column kind ${kind}`);
      this.kinds[i] = kind;
      this.starts[i] = at;
      at += length;
      this.ends[i] = at;
    }
    return at;
  }
}

export interface Begin {
  /** LSN of the commit record. */
  readonly lsn: bigint;
  /** Microseconds since 2000. */
  readonly time: number;
  readonly xid: number;
}

export function readBegin(source: Buffer, at: number): Begin {
  return { lsn: source.readBigUInt64BE(at + 1), time: Number(source.readBigInt64BE(at + 9)), xid: source.readUInt32BE(at + 17) };
}

export interface RelationColumn {
  readonly name: string;
  /** Part of the replica identity (with FULL: all columns). */
  readonly identity: boolean;
  readonly typeOid: number;
  readonly typeModifier: number;
}

export interface RelationMessage {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  /** `d` default, `n` nothing, `f` full, `i` index. */
  readonly identity: string;
  readonly columns: readonly RelationColumn[];
}

export function readRelation(source: Buffer, at: number): RelationMessage {
  const reader = new Cursor(source, at + 1);
  const oid = reader.uint32();
  // The empty namespace stands for pg_catalog.
  const schema = reader.cstring() || 'pg_catalog';
  const table = reader.cstring();
  const identity = String.fromCharCode(reader.uint8());
  const count = reader.uint16();
  const columns = Array.from({ length: count }, () => {
    const flags = reader.uint8();
    return { name: reader.cstring(), identity: (flags & 1) === 1, typeOid: reader.uint32(), typeModifier: reader.int32() };
  });
  return { oid, schema, table, identity, columns };
}

export interface RowChange {
  readonly relation: number;
  /** `oldRow.key`, `oldRow.full`, or 0 where Postgres sent no old row. */
  readonly oldKind: number;
}

/** Reads an insert, update or delete into the two tuples. */
export function readRowChange(source: Buffer, at: number, before: Tuple, after: Tuple): RowChange {
  const kind = source[at];
  const relation = source.readUInt32BE(at + 1);
  const part = source[at + 5]!;
  const oldKind = part === oldRow.key || part === oldRow.full ? part : 0;
  const next = oldKind === 0 ? at + 5 : before.read(source, at + 6);
  if (kind !== tag.delete) after.read(source, next + 1);
  return { relation, oldKind };
}

export function readTruncate(source: Buffer, at: number): readonly number[] {
  const count = source.readUInt32BE(at + 1);
  return Array.from({ length: count }, (_, i) => source.readUInt32BE(at + 6 + 4 * i));
}

export interface LogicalMessage {
  readonly transactional: boolean;
  /** For a non-transactional one the end of its record. */
  readonly lsn: bigint;
  readonly prefix: string;
  readonly content: Buffer;
}

export function readMessage(source: Buffer, at: number): LogicalMessage {
  const reader = new Cursor(source, at + 1);
  const transactional = (reader.uint8() & 1) === 1;
  const lsn = reader.uint64();
  const prefix = reader.cstring();
  const length = reader.uint32();
  return { transactional, lsn, prefix, content: source.subarray(reader.at, reader.at + length) };
}

class Cursor {
  readonly #source: Buffer;
  at: number;

  constructor(source: Buffer, at: number) {
    this.#source = source;
    this.at = at;
  }

  uint8(): number {
    return this.#source.readUInt8(this.at++);
  }
  uint16(): number {
    return this.#source.readUInt16BE((this.at += 2) - 2);
  }
  uint32(): number {
    return this.#source.readUInt32BE((this.at += 4) - 4);
  }
  int32(): number {
    return this.#source.readInt32BE((this.at += 4) - 4);
  }
  uint64(): bigint {
    return this.#source.readBigUInt64BE((this.at += 8) - 8);
  }
  cstring(): string {
    const end = this.#source.indexOf(0, this.at);
    const text = this.#source.toString('utf8', this.at, end);
    this.at = end + 1;
    return text;
  }
}

import { bareTypeName, columnType } from '../../../schemas/condition/column-type.ts';

/** By code points, as conditions compare text. */
export const byCodePoint = ' COLLATE pg_catalog."C"';

/** By the locale of the database. */
const byDefault = ' COLLATE pg_catalog."default"';

/** The names in `pg_catalog` by which values of a type are given; of `character` without its length, since a cast would cut them. */
const castTypes: ReadonlyMap<string, string> = new Map([
  ['smallint', 'int2'],
  ['integer', 'int4'],
  ['bigint', 'int8'],
  ['oid', 'oid'],
  ['numeric', 'numeric'],
  ['real', 'float4'],
  ['double precision', 'float8'],
  ['text', 'text'],
  ['character varying', 'text'],
  ['character', 'bpchar'],
  ['name', 'text'],
  ['"char"', 'text'],
  ['boolean', 'bool'],
  ['timestamp with time zone', 'timestamptz'],
  ['timestamp without time zone', 'timestamp'],
  ['date', 'date'],
  ['time without time zone', 'time'],
  ['uuid', 'uuid'],
  ['bytea', 'bytea'],
  ['inet', 'inet'],
  ['cidr', 'cidr'],
  ['macaddr', 'macaddr'],
  ['macaddr8', 'macaddr8'],
  ['interval', 'interval'],
  ['time with time zone', 'timetz'],
  ['bit', 'varbit'],
  ['bit varying', 'varbit'],
  ['pg_lsn', 'pg_lsn'],
]);

/** A value that SQL computes: a column, or a member of an answer about groups. */
export interface SqlValue {
  /** Of our own making: quoted names and functions. */
  readonly sql: string;
  /** Its type, as Postgres prints it. */
  readonly type: string;
  /** Text whose collation takes different texts for equal. */
  readonly loose: boolean;
}

/** A value to sort and to group by, and the type in `pg_catalog` that its text is read as. */
export interface SqlKey {
  readonly sql: string;
  readonly cast: string;
}

/** As text, spelled as events have it; null only where the value is null (a record of nulls is none). */
function printedText(sql: string): string {
  return `CASE WHEN ${sql} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', ${sql}) END`;
}

/**
 * The value as Postgres sorts it: text by the collation of its column, which an index can serve. What is not known is sorted by its text.
 * @param value one of a type that `isSortable`
 */
export function keyOf({ sql, type }: SqlValue): SqlKey {
  const cast = castTypes.get(bareTypeName(type));
  if (cast === undefined) return { sql: `(${printedText(sql)})${byCodePoint}`, cast: 'text' };
  // Values of these have no other way to be given.
  const converted = bareTypeName(type) === 'bit' ? `${sql}::pg_catalog.varbit` : plainText(sql, type);
  return { sql: converted, cast };
}

/** `name` and `"char"` as text. */
function plainText(sql: string, type: string): string {
  const bare = bareTypeName(type);
  return bare === 'name' || bare === '"char"' ? `${sql}::pg_catalog.text` : sql;
}

/** The value to make groups of: texts that differ are different groups, whatever their collation says. */
export function groupKeyOf(value: SqlValue): string {
  const { sql } = keyOf(value);
  return value.loose ? `${sql}${byCodePoint}` : sql;
}

/** A value as conditions compare it. */
export interface Operand {
  /** For equality. */
  readonly same: string;
  /** For order. */
  readonly ordered: string;
  /** For patterns. */
  readonly pattern: string;
  readonly isNull: string;
  readonly cast: string;
  /** A condition's value as the cast takes it; undefined when nothing is equal to it. */
  spell(value: string | number | boolean): string | undefined;
}

export function operandOf(value: SqlValue): Operand {
  const { sql, type, loose } = value;
  const { family } = columnType(type);
  const bare = bareTypeName(type);
  const isNull = `${sql} IS NULL`;
  const native = { same: sql, ordered: sql, pattern: sql, isNull, cast: castTypes.get(bare) ?? 'text', spell: String };
  if (family === 'text') {
    const text = plainText(sql, type);
    // Patterns know no such collations, and the one of `name` has no letters but those of ASCII.
    const pattern = loose || text !== sql ? text + byDefault : text;
    return { ...native, same: loose ? text + byCodePoint : text, ordered: text + byCodePoint, pattern };
  }
  if (bare === 'bytea') return { ...native, spell: (base64) => bytesOf(String(base64)) };
  if (family !== 'open' && family !== 'printed') return native;
  const printed = `(${printedText(sql)})`;
  return {
    ...{ same: printed, ordered: printed + byCodePoint, pattern: printed, cast: 'text', spell: String },
    isNull: `${sql} IS NOT DISTINCT FROM NULL`,
  };
}

/** Bytes are base64 in events; another spelling of the same bytes is another text. */
function bytesOf(base64: string): string | undefined {
  const bytes = Buffer.from(base64, 'base64');
  return bytes.toString('base64') === base64 ? `\\x${bytes.toString('hex')}` : undefined;
}

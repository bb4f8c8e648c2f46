import type { CompareOp } from './condition.ts';
import {
  boolean,
  exact,
  float,
  integer,
  moment,
  open,
  padded,
  printed,
  text,
  timeOfDay,
  tree,
  uuid,
  type ValueType,
} from './value-type.ts';

/** The columns of a table by name, each with its type as Postgres prints it (`format_type`), as in the log's schema events. */
export type ColumnTypes = ReadonlyMap<string, string>;

/**
 * How a column's values compare:
 * - `number`: smallint, integer, bigint, oid; numeric (exactly); real, double precision (as Postgres rounds them). NaN equals
 *   NaN and is above Infinity.
 * - `text`: in the order of code points (Postgres: `COLLATE "C"`); `character(n)` without the spaces at its end.
 * - `time`: timestamptz, timestamp, date as instants (without a zone: UTC); time of day. `uuid`: as Postgres orders them.
 * - `boolean`: equality only.
 * - `printed`: every other type with a text form that Postgres prints (inet, interval, bytea's base64, bit, money …): equality of
 *   that text (of base64 for bytea).
 * - `tree`: json, jsonb, arrays: only whether they are null, or have changed.
 * - `open`: an enum, or a type that is not known (a domain comes as its base type): a number compares as a decimal, text as text.
 */
export type Family = 'number' | 'text' | 'time' | 'uuid' | 'boolean' | 'printed' | 'tree' | 'open';

export interface ColumnType extends ValueType {
  /** As Postgres prints it; empty when it is not known. */
  readonly name: string;
  readonly family: Family;
}

/** The type of a column from its name in Postgres; undefined: not known. */
export function columnType(name: string | undefined): ColumnType {
  if (name === undefined) return { name: '', family: 'open', ...open };
  const bare = bareTypeName(name);
  if (bare.endsWith('[]')) return { name, family: 'tree', ...tree };
  return { name, ...(types.get(bare) ?? { family: 'open', ...open }) };
}

/** The name of a type without lengths and schema, as the SQL standard has it: `numeric(20,8)` is `numeric`, `int4` is `integer`. */
export function bareTypeName(name: string): string {
  const bare = name.replace(/ ?\([^)]*\)/u, '').replace(/^pg_catalog\./u, '');
  return aliases.get(bare) ?? bare;
}

const equality: ReadonlySet<string> = new Set(['eq', 'ne', 'in', 'nin', 'is_null', 'changed']);
const ordered: ReadonlySet<string> = new Set([...equality, 'gt', 'gte', 'lt', 'lte', 'between']);
const numeric: ReadonlySet<string> = new Set([...ordered, 'crosses_above', 'crosses_below', 'change']);
const pattern: ReadonlySet<string> = new Set([...ordered, 'like', 'ilike']);

const operators: Readonly<Record<Family, ReadonlySet<string>>> = {
  number: numeric,
  text: pattern,
  time: ordered,
  uuid: ordered,
  boolean: equality,
  printed: equality,
  tree: new Set(['is_null', 'changed']),
  open: new Set([...numeric, ...pattern]),
};

/** An operator of a leaf; `change` is percentage change. */
export type LeafOp = CompareOp | 'crosses_above' | 'crosses_below' | 'changed' | 'change';

/** May the operator stand beside a column of this type? */
export function allows({ family }: ColumnType, op: LeafOp): boolean {
  return operators[family].has(op);
}

type Known = { readonly family: Family } & ValueType;

const printedTypes: readonly string[] = [
  ...['time with time zone', 'interval', 'money', 'bytea', 'inet', 'cidr', 'macaddr', 'macaddr8', 'bit', 'bit varying', 'xid', 'xml'],
  ...['point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle', 'tsvector', 'tsquery', 'pg_lsn'],
  ...['int4range', 'int8range', 'numrange', 'tsrange', 'tstzrange', 'daterange'],
];

const types: ReadonlyMap<string, Known> = new Map<string, Known>([
  ...printedTypes.map((name): [string, Known] => [name, { family: 'printed', ...printed }]),
  ['smallint', { family: 'number', ...integer('-32768', '32767') }],
  ['integer', { family: 'number', ...integer('-2147483648', '2147483647') }],
  ['bigint', { family: 'number', ...integer('-9223372036854775808', '9223372036854775807') }],
  ['oid', { family: 'number', ...integer('0', '4294967295') }],
  ['numeric', { family: 'number', ...exact }],
  ['real', { family: 'number', ...float(Math.fround) }],
  ['double precision', { family: 'number', ...float((value) => value) }],
  ['text', { family: 'text', ...text }],
  ['character varying', { family: 'text', ...text }],
  ['character', { family: 'text', ...padded }],
  ['name', { family: 'text', ...text }],
  ['"char"', { family: 'text', ...text }],
  ['boolean', { family: 'boolean', ...boolean }],
  ['timestamp with time zone', { family: 'time', ...moment(true, false) }],
  ['timestamp without time zone', { family: 'time', ...moment(false, false) }],
  ['date', { family: 'time', ...moment(false, true) }],
  ['time without time zone', { family: 'time', ...timeOfDay }],
  ['uuid', { family: 'uuid', ...uuid }],
  ['json', { family: 'tree', ...tree }],
  ['jsonb', { family: 'tree', ...tree }],
]);

/** Names of the catalogue of Postgres, for those who have the types from there. */
const aliases: ReadonlyMap<string, string> = new Map([
  ['int2', 'smallint'],
  ['int4', 'integer'],
  ['int8', 'bigint'],
  ['float4', 'real'],
  ['float8', 'double precision'],
  ['decimal', 'numeric'],
  ['varchar', 'character varying'],
  ['bpchar', 'character'],
  ['bool', 'boolean'],
  ['timestamptz', 'timestamp with time zone'],
  ['timestamp', 'timestamp without time zone'],
  ['time', 'time without time zone'],
  ['timetz', 'time with time zone'],
]);

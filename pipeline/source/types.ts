import type { Queryable } from '../clients/postgres.ts';
import { arrayValue } from './arrays.ts';
import { builtinValues, byteaOid, jsonTypes, stringValue, type ValueEncoder } from './values.ts';

interface TypeRow {
  oid: number;
  base: number;
  element: number;
  is_array: boolean;
  delimiter: string;
}

/** A type's JSON mapping. */
export interface ValueType {
  readonly encode: ValueEncoder;
  /** json or jsonb, or a domain over one: JSON null is then a value of its own. */
  readonly json: boolean;
  /** bytea, or a domain over it: base64 in JSON. */
  readonly bytes: boolean;
  /** Of an array, or a domain over one, the type of its elements. */
  readonly element: ValueType | undefined;
}

/** What every type without a mapping of its own is. */
const stringType: ValueType = { encode: stringValue, json: false, bytes: false, element: undefined };

const queryTypes = `
  SELECT t.oid::int8::float8 AS oid, t.typbasetype::int8::float8 AS base, t.typelem::int8::float8 AS element,
         t.typinput = 'pg_catalog.array_in'::pg_catalog.regproc AS is_array, t.typdelim AS delimiter
    FROM pg_catalog.pg_type t WHERE t.oid = ANY($1::pg_catalog.oid[])`;

/**
 * SQL for a type's name as events have it: as Postgres prints it, of a domain that of its base type, as of its values.
 * @param oid @param modifier SQL expressions
 */
export function typeNameSql(oid: string, modifier: string): string {
  return `(WITH RECURSIVE base(oid, modifier, depth) AS (
      SELECT ${oid}, ${modifier}, 0
      UNION ALL
      SELECT d.typbasetype, d.typtypmod, depth + 1 FROM base JOIN pg_catalog.pg_type d ON d.oid = base.oid WHERE d.typtype = 'd')
    SELECT pg_catalog.format_type(base.oid, base.modifier) FROM base ORDER BY depth DESC LIMIT 1)`;
}

/** The mapping of every type met so far, looked up in the catalogue of Postgres when it is new: domains, arrays, their elements. */
export class TypeRegistry {
  readonly #types = new Map<number, ValueType>();

  /** The mapping of a type that `load` has seen; a string for one that no longer exists. */
  get(oid: number): ValueType {
    return this.#types.get(oid) ?? stringType;
  }

  /** Makes sure that these types are known. */
  async load(client: Queryable, oids: readonly number[]): Promise<void> {
    const rows = new Map<number, TypeRow>();
    let missing = oids.filter((oid) => !this.#types.has(oid));
    while (missing.length > 0) {
      const { rows: found } = await client.query<TypeRow>(queryTypes, [missing]);
      for (const row of found) rows.set(row.oid, row);
      missing = found
        .flatMap((row) => [row.base, row.is_array ? row.element : 0])
        .filter((oid) => oid !== 0 && !rows.has(oid) && !this.#types.has(oid));
    }
    for (const oid of oids) this.#resolve(oid, rows);
  }

  #resolve(oid: number, rows: ReadonlyMap<number, TypeRow>): ValueType {
    const known = this.#types.get(oid);
    if (known) return known;
    const type = this.#make(oid, rows);
    this.#types.set(oid, type);
    return type;
  }

  #make(oid: number, rows: ReadonlyMap<number, TypeRow>): ValueType {
    const builtin = builtinValues.get(oid);
    if (builtin) return { encode: builtin, json: jsonTypes.has(oid), bytes: oid === byteaOid, element: undefined };
    const row = rows.get(oid);
    if (row && row.base !== 0) return this.#resolve(row.base, rows);
    if (!row?.is_array) return stringType;
    const element = this.#resolve(row.element, rows);
    return { encode: arrayValue(element.encode, row.delimiter), json: false, bytes: false, element };
  }
}

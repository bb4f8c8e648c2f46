import type { PgPool } from '../pipeline/clients/postgres.ts';

/** A table of someone's database, as far as a catalogue can say something of it. */
export interface FoundTable {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  /** Primary key columns in key order. */
  readonly key: readonly string[];
  /** What UPDATE and DELETE identify a row by; undefined when there is nothing usable. */
  readonly identity: string | undefined;
}

interface TableRow {
  readonly schema: string;
  readonly name: string;
  readonly columns: FoundTable['columns'];
  readonly key: string[] | null;
  readonly immediate: boolean | null;
  readonly relreplident: 'd' | 'n' | 'f' | 'i';
  readonly identity_index: string | null;
}

/**
 * The tables Headwater would look at: ordinary and partitioned ones outside the system's and its own schema, without
 * partitions of others. Identity is judged as logical replication does (CREATE PUBLICATION, ALTER TABLE … REPLICA IDENTITY).
 */
export async function findTables(pool: PgPool): Promise<FoundTable[]> {
  const { rows } = await pool.query<TableRow>(`
    SELECT n.nspname AS schema, c.relname AS name, c.relreplident,
      (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
      (SELECT json_agg(a.attname ORDER BY k.place) FROM unnest(p.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.place <= p.indnkeyatts) AS key,
      p.indimmediate AS immediate,
      (SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) AS identity_index
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'headwater')
    ORDER BY n.nspname, c.relname`);
  return rows.map((row) => ({
    schema: row.schema,
    name: row.name,
    columns: row.columns ?? [],
    key: row.key ?? [],
    identity: identityOf(row),
  }));
}

function identityOf({ relreplident, key, immediate, identity_index }: TableRow): string | undefined {
  if (relreplident === 'f') return 'FULL: the whole old row';
  if (relreplident === 'i') return identity_index === null ? undefined : `the index ${identity_index}`;
  return relreplident === 'd' && key && immediate ? `the primary key (${key.join(', ')})` : undefined;
}

/** A catalogue that says of these tables what is so anyway, to be edited. */
export function catalogTemplate(tables: readonly FoundTable[]): string {
  const head = [
    '# Headwater’s catalogue: what the tables mean to readers of the log. Name this file in HEADWATER_CATALOG.',
    '#   type      of the table’s events',
    '#   channel   where subscribers find them',
    '#   filters   which column a subscriber’s filter field means: protocolIds, tokenIds, chains, userId, value (minValue, maxValue)',
    '#   exclude   columns that never reach the log',
    '#   cache     false keeps the table out of the cache',
    '',
  ];
  const body = tables.length === 0 ? ['tables: {}'] : ['tables:', ...tables.flatMap(entry)];
  return [
    ...head,
    ...body,
    '# Tables that are not named above are captured too, each under its own name.',
    'others: true',
    '# Never captured: patterns such as public.tmp_*',
    'exclude: []',
    '',
  ].join('\n');
}

function entry(table: FoundTable): string[] {
  const name = `${table.schema}.${table.name}`;
  const identity = table.identity
    ? [`    # identity: ${oneLine(table.identity)}`]
    : [
        '    # identity: none that is usable, so the table is left out. Either ALTER TABLE … ADD PRIMARY KEY or REPLICA IDENTITY FULL,',
        '    # or capture its inserts and truncates only:',
        '    # appendOnly: true',
      ];
  return [
    `  ${scalar(name)}:`,
    `    # columns: ${table.columns.map((column) => oneLine(`${column.name} ${column.type}`)).join(', ')}`,
    ...identity,
    '    type: row',
    `    channel: ${scalar(name.replace(/[\s:]/gu, '_').slice(0, 128))}`,
    '    filters: {}',
    '',
  ];
}

/** Plain where YAML takes it as it is, else quoted: JSON strings are YAML. */
function scalar(text: string): string {
  return /^[A-Za-z_][\w.-]*$/.test(text) ? text : JSON.stringify(text);
}

function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, ' ');
}

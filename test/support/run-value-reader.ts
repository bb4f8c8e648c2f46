import { connectPostgres, stableText } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { encodeRow } from '../../pipeline/source/event-encoder.ts';
import { PostgresSource } from '../../pipeline/source/postgres-source.ts';
import { describeTable, readRows, selectRows } from '../../pipeline/source/table-reader.ts';
import { TypeRegistry } from '../../pipeline/source/types.ts';
import { defaultCatalog } from '../../schemas/catalog.ts';

/**
 * A program of its own, since a process keeps the time zone that it began with: prints as a JSON line its offset from UTC,
 * the first row event of a slot, and the row as a snapshot reads it.
 */
const [url, slot, schema, table] = process.argv.slice(2);
if (url === undefined || slot === undefined || schema === undefined || table === undefined)
  throw new Error('usage: run-value-reader URL SLOT SCHEMA TABLE');
const client = await connectPostgres(url, 'test', silentLogger());
for (const statement of stableText) await client.query(statement);
const log = silentLogger();
const source = new PostgresSource({
  url,
  slot,
  publications: ['everything'],
  catalog: defaultCatalog(),
  subject: 'ev',
  eventLimit: 1_000_000,
  log,
  client,
  schemas: new Map(),
});
const streamed = await firstRow(AbortSignal.timeout(20_000));
const { rows } = await client.query<{ oid: number }>(
  'SELECT c.oid::int8::float8 AS oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2',
  [schema, table],
);
const readable = await describeTable(client, { oid: rows[0]!.oid, schema, table }, new TypeRegistry(), defaultCatalog(), 'ev');
let copied = '';
await readRows(client, selectRows(readable, {}), (row) => (copied = encodeRow(readable.relation, row).toString('utf8')));
await client.end();
process.stdout.write(`${JSON.stringify({ offset: new Date(Date.UTC(2026, 0)).getTimezoneOffset(), streamed, copied })}\n`);

async function firstRow(signal: AbortSignal): Promise<string> {
  for await (const events of source.read({ lsn: 0n, index: 0 }, signal)) {
    const row = events.find((event) => event.table !== undefined);
    if (row) return Buffer.from(row.data).toString('utf8');
  }
  throw new Error('no row came');
}

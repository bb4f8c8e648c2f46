import { existsSync, createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { expect } from 'chai';
import { from as copyFrom } from 'pg-copy-streams';
import { projectRoot } from '../../project-root.ts';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';
import type { StoredEvent } from './support/stored-events.ts';

/** Published market data, beside the project where it is at hand. */
const data = join(projectRoot(), '../shared/data');

const files = [
  {
    file: 'btc_usd_daily_candles.csv',
    table: 'candles',
    columns: 'day timestamp, open numeric, close numeric, volume numeric, unix bigint, high numeric, low numeric',
  },
  {
    file: 'crypto_trades.csv',
    table: 'trades',
    columns: 'day text, nanos text, id bigint, instrument text, exchange text, price numeric, size text',
  },
  {
    file: 'protocol_tvl_2024_07_10.csv',
    table: 'tvl',
    columns: 'day timestamp, protocol text, chain text, tvl numeric, tvl_start numeric, tvl_current numeric, tvl_delta numeric',
  },
];

/** A row's values in the order of its columns, as text; timestamps as Postgres prints them. */
function texts(row: Readonly<Record<string, unknown>>): string {
  const { line: _line, ...rest } = row;
  return JSON.stringify(Object.entries(rest).map(([name, value]) => (name === 'day' ? String(value).replace('T', ' ') : String(value))));
}

describe('capture: real market data', function () {
  let fixture: CaptureFixture;
  before(async function () {
    if (!existsSync(data)) this.skip();
    fixture = await captureFixture();
  });
  after(() => fixture?.close());

  it('arrives complete, value for value, through the snapshot and through the stream', async () => {
    for (const { table, columns } of files) await fixture.query(`CREATE TABLE ${table} (line serial PRIMARY KEY, ${columns})`);
    const load = async (): Promise<void> => {
      for (const { file, table, columns } of files) {
        const names = columns.split(', ').map((column) => column.split(' ')[0]);
        const into = fixture.sql.query(copyFrom(`COPY ${table} (${names.join(', ')}) FROM STDIN (FORMAT csv, HEADER)`));
        await pipeline(createReadStream(join(data, file)), into);
      }
    };
    await load();
    await fixture.streaming();
    await load();
    const events = await fixture.settled();
    for (const { table, columns } of files) {
      const names = columns.split(', ').map((column) => column.split(' ')[0]);
      const rows = await fixture.query(`SELECT ${names.map((name) => `${name}::text`).join(', ')} FROM ${table} ORDER BY line`);
      // A table's pages need not have the order in which its rows came.
      const lineOf = (event: StoredEvent): number => event.after!['line'] as number;
      const logged = events.filter((event) => event.table === `public.${table}`).toSorted((a, b) => lineOf(a) - lineOf(b));
      expect(logged.length).to.equal(rows.length);
      for (const [i, event] of logged.entries()) expect(texts(event.after!)).to.equal(texts(rows[i]!));
      expect(logged.map((event) => event.op).filter((op) => op === 'insert').length, 'half of them streamed').to.equal(rows.length / 2);
    }
  });
});

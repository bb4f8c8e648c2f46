import { escapeLiteral } from '../../../../pipeline/clients/postgres.ts';
import { definitionsOf } from '../../../../processors/aggregates/definition.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { parseCatalog } from '../../../../schemas/catalog-file.ts';
import type { Catalog } from '../../../../schemas/catalog.ts';
import type { Random } from '../../../pipeline/capture/support/random.ts';

/**
 * Trades, and each of their changes as SQL sees it. Large notes are not sent again when others change; `size` and `made_at` are always there, as
 * a note that nothing was counted under would be unknown.
 */
export const tradesSchema: readonly string[] = [
  `CREATE TABLE trades (id bigint, part text COLLATE "C", pair text, price numeric, traded_at timestamptz, note text,
     size int NOT NULL DEFAULT 1, made_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, part))`,
  'ALTER TABLE trades ALTER COLUMN note SET STORAGE EXTERNAL',
  `INSERT INTO trades SELECT i, 'p', 'a', i * 1.10, now() - i * interval '1 minute', 'short' FROM generate_series(1, 30) i`,
  'CREATE TABLE trade_history (n bigserial PRIMARY KEY, pair text, price numeric, traded_at timestamptz)',
  `CREATE FUNCTION note_trade() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
     INSERT INTO trade_history (pair, price, traded_at) VALUES (NEW.pair, NEW.price, NEW.traded_at);
     RETURN NULL;
   END $$`,
  'CREATE TRIGGER note_trade AFTER INSERT OR UPDATE ON trades FOR EACH ROW EXECUTE FUNCTION note_trade()',
];

export const tradesYaml = `aggregates:
  rows: { table: public.trades, by: [pair], value: price, time: traded_at, of: rows, windows: [1m, 5m, 1h, 1d], functions: [count, open, high, low, close, avg, p50, p99] }
  changes: { table: public.trades, by: [pair], value: price, time: traded_at, of: changes, windows: [1m, 1h, 1d], functions: [count, open, high, low, close, p90] }
  notes: { table: public.trades, by: [note, pair], value: size, time: made_at, of: rows, windows: [1h, 1d], functions: [sum, min, max] }
  counts: { table: public.trades, by: [], time: traded_at, of: rows, windows: [1h], functions: [count] }
others: true
exclude: [public.trade_history]
`;

export const tradesCatalog = (): Catalog => parseCatalog(tradesYaml, 'trades.yaml');

/** Each definition with what SQL aggregates, and orders values of one time by. */
export function tradesChecks(): readonly { readonly definition: Definition; readonly from: string; readonly id: string }[] {
  return [...definitionsOf(tradesCatalog()).values()].map((definition) =>
    definition.of === 'changes'
      ? { definition, from: 'SELECT * FROM trade_history', id: 'n' }
      : { definition, from: 'SELECT * FROM trades', id: 'ROW(id, part)' },
  );
}

const pairs: readonly (string | null)[] = ['a', 'b', 'ü "x" \\', null];
const notes: readonly (string | null)[] = ['short', 'x'.repeat(9_000), 'y'.repeat(9_000), null];
const parts: readonly string[] = ['p', 'é', '\u{1F600}', '\uFFFD'];

/** Statements of one transaction at random. */
export function tradeStatements(random: Random): string[] {
  return Array.from({ length: random.int(1, 4) }, () => tradeStatement(random));
}

function tradeStatement(random: Random): string {
  const where = `WHERE id = ${random.int(1, 60)}`;
  const chance = random.next();
  if (chance < 0.45)
    return `INSERT INTO trades VALUES (${random.int(1, 60)}, ${text(random.pick(parts))}, ${text(random.pick(pairs))}, ${price(random)}, ${time(random)}, ${text(random.pick(notes))}, ${random.int(-9, 99)}, ${minutes(random)})
      ON CONFLICT (id, part) DO UPDATE SET price = EXCLUDED.price, pair = EXCLUDED.pair, traded_at = EXCLUDED.traded_at, size = EXCLUDED.size`;
  if (chance < 0.6) return `UPDATE trades SET price = ${price(random)} ${where}`;
  if (chance < 0.63) return `UPDATE trades SET size = ${random.int(-9, 99)}, made_at = ${minutes(random)} ${where}`;
  if (chance < 0.7) return `UPDATE trades SET traded_at = ${time(random)} ${where}`;
  if (chance < 0.76) return `UPDATE trades SET pair = ${text(random.pick(pairs))} ${where}`;
  if (chance < 0.8) return `UPDATE trades SET note = ${text(random.pick(notes))} ${where}`;
  if (chance < 0.84)
    return `UPDATE trades SET id = id + 60 ${where} AND NOT EXISTS (SELECT FROM trades other WHERE other.id = trades.id + 60)`;
  if (chance < 0.87)
    return `UPDATE trades SET id = id - 60 WHERE id = ${random.int(61, 120)} AND NOT EXISTS (SELECT FROM trades other WHERE other.id = trades.id - 60)`;
  if (chance < 0.997) return `DELETE FROM trades ${where}`;
  return 'TRUNCATE trades';
}

/** So many trades in one minute that percentiles become estimates, and the removal of some of them. */
export function crowdStatements(random: Random): string[] {
  const from = random.int(1_000, 9_000) * 1_000;
  const spread = `'p', 'a', (n * 7919 % 1301) / ${random.pick(['10.0', '3.0', '1'])}, date_trunc('minute', now() - interval '2 hours') + n % 60 * interval '1 second', 'short'`;
  return [
    `INSERT INTO trades SELECT ${from} + n, ${spread} FROM generate_series(1, 1500) n ON CONFLICT DO NOTHING`,
    `DELETE FROM trades WHERE id BETWEEN ${from} + 100 AND ${from} + 300`,
  ];
}

function text(value: string | null): string {
  return value === null ? 'NULL' : escapeLiteral(value);
}

function price(random: Random): string {
  const chance = random.next();
  if (chance < 0.04) return 'NULL';
  if (chance < 0.06) return random.pick([`'NaN'`, `'Infinity'`]);
  if (chance < 0.1) return `${random.int(1, 9)}23456789012345678901234567890.123456789012345678`;
  if (chance < 0.2) return (random.int(-1_000, 1_000) / 100).toFixed(random.int(0, 4));
  return (random.int(1, 2_000) / 10 ** random.int(0, 3)).toFixed(random.int(0, 8));
}

/** Of the last three days, most of them of the last minutes, to the second, so that they meet. */
function time(random: Random): string {
  const chance = random.next();
  if (chance < 0.02) return 'NULL';
  if (chance < 0.03) return `'infinity'`;
  const seconds = chance < 0.3 ? random.int(-3_600, 3 * 86_400) : random.int(0, 240);
  return `date_trunc('second', now()) - interval '${seconds} seconds'`;
}

/** Of the last hours. */
function minutes(random: Random): string {
  return `date_trunc('second', now()) - interval '${random.int(0, 300)} minutes'`;
}

import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { pause } from '../../../../pipeline/runtime/backoff.ts';
import type { Random } from './random.ts';

/** The tables of the load: a plain key, one of two columns, and the whole row as identity. */
export const loadTables = ['public.accounts', 'public.positions', 'public.notes'] as const;

export const loadSchema: readonly string[] = [
  'CREATE TABLE accounts (id bigint PRIMARY KEY, name text, balance numeric(20, 4))',
  'CREATE TABLE positions (chain text, token text, amount bigint, PRIMARY KEY (token, chain))',
  'CREATE TABLE notes (id int PRIMARY KEY, body text, seen int)',
  'ALTER TABLE notes REPLICA IDENTITY FULL',
];

/** Transactions of random sizes and kinds on one connection after another, for ever, whatever happens to the server. */
export class CrashLoad {
  readonly #url: string;
  readonly #random: Random;
  readonly #stop = new AbortController();
  readonly #writers: Promise<void>[];
  #next = 1;
  commits = 0;

  constructor(url: string, random: Random, writers = 2) {
    this.#url = url;
    this.#random = random;
    this.#writers = Array.from({ length: writers }, () => this.#write());
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#writers);
  }

  async #write(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const client = await connectPostgres(this.#url, 'load', silentLogger(), { connectionTimeoutMillis: 2_000 }).catch(() => undefined);
      try {
        while (client && !signal.aborted) {
          await this.#transaction(client);
          this.commits++;
          await pause(this.#random.int(0, 12), signal);
        }
      } catch {
        // The server went away, or two writers were in each other's way: whether the transaction was committed the oracle knows.
      }
      await client?.end().catch(() => undefined);
      await pause(20, signal);
    }
  }

  async #transaction(client: PgClient): Promise<void> {
    const random = this.#random;
    if (random.chance(0.1)) {
      await client.query(`SELECT pg_logical_emit_message(false, 'load.aside', $1)`, [`aside ${this.#next++}`]);
      return;
    }
    if (random.chance(0.3)) {
      await this.#statement(client, 1);
      return;
    }
    await client.query('BEGIN');
    const statements = random.int(1, 5);
    const size = random.chance(0.15) ? random.int(200, 2_500) : random.int(1, 20);
    for (let i = 0; i < statements; i++) {
      if (random.chance(0.1)) await this.#undone(client, size);
      await this.#statement(client, Math.ceil(size / statements));
    }
    if (random.chance(0.1)) await client.query(`SELECT pg_logical_emit_message(true, 'load.within', $1)`, [`it's within ${this.#next++}`]);
    await client.query(random.chance(0.05) ? 'ROLLBACK' : 'COMMIT');
  }

  /** Work that is rolled back to a savepoint: it must not be seen. */
  async #undone(client: PgClient, size: number): Promise<void> {
    await client.query('SAVEPOINT s');
    await this.#statement(client, Math.min(size, 50));
    await client.query('ROLLBACK TO SAVEPOINT s');
  }

  async #statement(client: PgClient, rows: number): Promise<void> {
    const random = this.#random;
    const from = this.#next;
    this.#next += rows;
    const to = from + rows - 1;
    const some = random.int(1, Math.max(1, from));
    const statements: readonly (readonly [string, ...unknown[]])[] = [
      [`INSERT INTO accounts SELECT i, 'it''s ' || md5(i::text), i * 1.0001 FROM generate_series($1::bigint, $2::bigint) i`, from, to],
      [`INSERT INTO positions SELECT 'chain ' || i % 7, 'token ' || i, i FROM generate_series($1::int, $2::int) i`, from, to],
      [`INSERT INTO notes SELECT i, repeat('note ', i % 20), NULL FROM generate_series($1::int, $2::int) i`, from, to],
      [`UPDATE accounts SET balance = balance + 1.5 WHERE id BETWEEN $1 AND $2`, some, some + rows],
      [`UPDATE accounts SET id = id + 1000000000 WHERE id BETWEEN $1 AND $2`, some, some + Math.min(rows, 5)],
      [`UPDATE positions SET amount = -amount WHERE amount BETWEEN $1 AND $2`, some, some + rows],
      [`UPDATE notes SET seen = coalesce(seen, 0) + 1 WHERE id BETWEEN $1 AND $2`, some, some + rows],
      [`DELETE FROM accounts WHERE id BETWEEN $1 AND $2`, some, some + Math.ceil(rows / 2)],
      [`DELETE FROM positions WHERE amount BETWEEN $1 AND $2`, some, some + Math.ceil(rows / 2)],
      [`DELETE FROM notes WHERE id BETWEEN $1 AND $2`, some, some + Math.ceil(rows / 2)],
    ];
    if (random.chance(0.003)) return void (await client.query('TRUNCATE notes'));
    const [text, ...values] = random.pick(statements);
    await client.query(text, values);
  }
}

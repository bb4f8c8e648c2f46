import { closePostgres, connectPostgres, stableText, type PgClient } from '../../clients/postgres.ts';
import type { Logger } from '../../runtime/logging.ts';
import { parseLsn, type Lsn } from '../../source/position.ts';
import { Visibility } from '../visibility.ts';

/** A connection by which tables are read: made when it is needed, and made anew after it was given up. */
export class ReaderConnection {
  readonly #url: string;
  readonly #log: Logger;
  #client: PgClient | undefined;
  #closed = false;

  constructor(url: string, log: Logger) {
    this.#url = url;
    this.#log = log;
  }

  async client(): Promise<PgClient> {
    if (this.#closed) throw new Error('the backfill is stopping');
    if (this.#client) return this.#client;
    const client = await connectPostgres(this.#url, 'headwater backfill', this.#log);
    this.#client = client;
    if (this.#closed) await closePostgres(client);
    for (const setting of stableText) await client.query(setting);
    return client;
  }

  /** Is this the one that is in use? */
  is(client: PgClient): boolean {
    return this.#client === client;
  }

  /** The snapshot of its transaction, or of now. */
  async snapshot(): Promise<Visibility> {
    const client = await this.client();
    const { rows } = await client.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot');
    return new Visibility(rows[0]!.snapshot);
  }

  /** The end of the WAL: whatever was visible before stands before it. */
  async position(): Promise<Lsn> {
    const client = await this.client();
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
    return parseLsn(rows[0]!.lsn);
  }

  async rollback(): Promise<void> {
    await this.#client?.query('ROLLBACK').catch(() => undefined);
  }

  /** Gives up the connection, with whatever it waits for; the next question makes another one. */
  async disconnect(graceMs?: number): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client) await closePostgres(client, graceMs);
  }

  /** The same for good. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.disconnect();
  }
}

import type { PgPool, PgPoolClient, Queryable } from '../clients/postgres.ts';
import type { CommitOutcome, Offset, StateStore } from './state-store.ts';

/** How a processor's effects become SQL. */
export interface PostgresEffects<Effects> {
  /** Is there nothing to write? Then a commit is one statement. */
  isEmpty(effects: Effects): boolean;
  /** What is kept in the offset's own row and changes with nearly every commit, as JSON text; undefined leaves what is there. */
  head?(effects: Effects): string | undefined;
  /** Writes the effects in the transaction that moves the offset. Tried again as a whole when it throws. */
  write(client: Queryable, effects: Effects): Promise<void>;
}

/** Before the offset is compared. A client that has vanished in the middle must not keep the row locked for longer than a lease. */
const begin = `BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'`;

const compareAndSet = `
  UPDATE headwater.processor_offsets SET seq = $4, epoch = $5, head = coalesce($6, head) WHERE processor = $1 AND seq = $2 AND epoch = $3`;

/** Where there is no offset yet, though perhaps a lease. */
const setFirst = `
  INSERT INTO headwater.processor_offsets AS o (processor, seq, epoch, head) VALUES ($1, $2, $3, $4)
  ON CONFLICT (processor) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, head = excluded.head WHERE o.seq IS NULL`;

const forget = `
  UPDATE headwater.processor_offsets SET seq = NULL, epoch = NULL, head = NULL WHERE processor = $1 AND seq = $2 AND epoch = $3`;

/** By the server's clock, read after a lock has been waited for. */
const takeLease = `
  INSERT INTO headwater.processor_offsets AS o (processor, owner, leased_until)
  VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
  ON CONFLICT (processor) DO UPDATE SET owner = $2, leased_until = clock_timestamp() + $3 * interval '1 millisecond'
  WHERE o.owner IS NULL OR o.owner = $2 OR o.leased_until <= clock_timestamp()`;

const releaseLease = 'UPDATE headwater.processor_offsets SET owner = NULL, leased_until = NULL WHERE processor = $1 AND owner = $2';

/**
 * State in PostgreSQL, in `headwater.processor_offsets` and the processor's own tables: one transaction a batch compares the
 * offset, writes the effects and sets the new offset. The row's lock makes instances take turns.
 */
export class PostgresStateStore<Effects> implements StateStore<Effects> {
  readonly #pool: PgPool;
  readonly #processor: string;
  readonly #effects: PostgresEffects<Effects>;

  constructor(pool: PgPool, processor: string, effects: PostgresEffects<Effects>) {
    this.#pool = pool;
    this.#processor = processor;
    this.#effects = effects;
  }

  async offset(): Promise<Offset | undefined> {
    const { rows } = await this.#pool.query<{ seq: string | null; epoch: string | null }>(
      'SELECT seq, epoch FROM headwater.processor_offsets WHERE processor = $1',
      [this.#processor],
    );
    const { seq, epoch } = rows[0] ?? { seq: null, epoch: null };
    return seq === null || epoch === null ? undefined : { seq: Number(seq), epoch };
  }

  async commit(effects: Effects, expected: Offset | undefined, next: Offset): Promise<CommitOutcome> {
    const head = this.#effects.head?.(effects) ?? null;
    if (this.#effects.isEmpty(effects)) return outcomeOf(await this.#exchange(this.#pool, expected, next, head));
    return this.#transaction(expected, next, head, (client) => this.#effects.write(client, effects));
  }

  /**
   * Moves the offset and does what has to be done with it, in one transaction; without a `next` there is no offset
   * afterwards, and the processor begins anew.
   */
  change(expected: Offset, next: Offset | undefined, work: (client: Queryable) => Promise<void>): Promise<CommitOutcome> {
    return this.#transaction(expected, next, null, work);
  }

  async lease(owner: string, ttlMs: number): Promise<boolean> {
    const { rowCount } = await this.#pool.query(takeLease, [this.#processor, owner, ttlMs]);
    return rowCount === 1;
  }

  async release(owner: string): Promise<void> {
    await this.#pool.query(releaseLease, [this.#processor, owner]);
  }

  async #transaction(
    expected: Offset | undefined,
    next: Offset | undefined,
    head: string | null,
    work: (client: Queryable) => Promise<void>,
  ): Promise<CommitOutcome> {
    const client = await this.#pool.connect();
    try {
      await client.query(begin);
      const moved = await this.#exchange(client, expected, next, head);
      if (moved) await work(client);
      await client.query(moved ? 'COMMIT' : 'ROLLBACK');
      client.release();
      return outcomeOf(moved);
    } catch (error) {
      // Without the connection there is no transaction either, unless it is just being committed: the next comparison waits for that.
      client.release(true);
      throw error;
    }
  }

  async #exchange(
    on: PgPool | PgPoolClient,
    expected: Offset | undefined,
    next: Offset | undefined,
    head: string | null,
  ): Promise<boolean> {
    const stored = expected ? [expected.seq, expected.epoch] : [];
    const wanted = next ? [next.seq, next.epoch, head] : [];
    const statement = next ? (expected ? compareAndSet : setFirst) : forget;
    const { rowCount } = await on.query(statement, [this.#processor, ...stored, ...wanted]);
    return rowCount === 1;
  }
}

function outcomeOf(moved: boolean): CommitOutcome {
  return moved ? 'committed' : 'lost';
}

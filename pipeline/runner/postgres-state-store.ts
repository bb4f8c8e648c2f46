import type { PgPool, PgPoolClient, Queryable } from '../clients/postgres.ts';
import type { Seq } from '../log/event-log.ts';
import type { CommitOutcome, Holes, Offset, StateStore } from './state-store.ts';

/** How a processor's effects become SQL. */
export interface PostgresEffects<Effects> {
  /** Is there nothing to write? Then a commit is one statement. */
  isEmpty(effects: Effects): boolean;
  /** What is kept in the offset's own row and changes with nearly every commit, as JSON text; undefined leaves what is there. */
  head?(effects: Effects): string | undefined;
  /**
   * Writes the effects in the transaction that moves the offset. Tried again as a whole when it throws.
   * @param namespace what the processor's rows of state are marked with: its name, or another one after a rebuild
   */
  write(client: Queryable, effects: Effects, namespace: string): Promise<void>;
}

/** Before the offset is compared. A client that has vanished in the middle must not keep the row locked for longer than a lease. */
const begin = `BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'`;

const compareAndSet = `
  UPDATE headwater.processor_offsets SET seq = $5, epoch = $6, head = coalesce($7, head)
  WHERE processor = $1 AND seq = $2 AND epoch = $3 AND namespace IS NOT DISTINCT FROM $4 RETURNING namespace`;

/** Where there is no offset yet, though perhaps a lease. */
const setFirst = `
  INSERT INTO headwater.processor_offsets AS o (processor, seq, epoch, head) VALUES ($1, $2, $3, $4)
  ON CONFLICT (processor) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch, head = excluded.head WHERE o.seq IS NULL
  RETURNING namespace`;

const readOffset = 'SELECT seq, epoch, redriven, namespace FROM headwater.processor_offsets WHERE processor = $1';

interface OffsetRow {
  readonly seq: string | null;
  readonly epoch: string | null;
  readonly redriven: string | null;
  readonly namespace: string | null;
}

/** What a redrive, or an event that went to the dead letters, changes besides. */
const noteHoles = `
  UPDATE headwater.processor_offsets
     SET redriven = coalesce($2, redriven), holes = ARRAY(SELECT unnest(holes || $3::bigint[]) EXCEPT SELECT unnest($4::bigint[]) ORDER BY 1)
   WHERE processor = $1`;

const forget = `
  UPDATE headwater.processor_offsets SET seq = NULL, epoch = NULL, head = NULL, redriven = NULL, holes = '{}'
  WHERE processor = $1 AND seq = $2 AND epoch = $3 AND namespace IS NOT DISTINCT FROM $4 RETURNING namespace`;

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
  readonly #guard: ((client: Queryable) => Promise<boolean>) | undefined;

  /** @param guard asked in the transaction of each commit before anything is changed, and locks what it looks at; false: the commit is lost */
  constructor(pool: PgPool, processor: string, effects: PostgresEffects<Effects>, guard?: (client: Queryable) => Promise<boolean>) {
    this.#pool = pool;
    this.#processor = processor;
    this.#effects = effects;
    this.#guard = guard;
  }

  async offset(): Promise<Offset | undefined> {
    const { rows } = await this.#pool.query<OffsetRow>(readOffset, [this.#processor]);
    return rows[0] && offsetOf(rows[0]);
  }

  async commit(effects: Effects, expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome> {
    const head = this.#effects.head?.(effects) ?? null;
    const redriven = next.redriven === expected?.redriven ? undefined : next.redriven;
    const noted = redriven !== undefined || holes !== undefined;
    const isEmpty = this.#effects.isEmpty(effects);
    if (isEmpty && !noted && !this.#guard) return outcomeOf((await this.#exchange(this.#pool, expected, next, head)) !== undefined);
    return this.#transaction(expected, next, head, async (client, namespace) => {
      if (noted) await client.query(noteHoles, [this.#processor, redriven ?? null, holes?.made ?? [], holes?.mended ?? []]);
      if (!isEmpty) await this.#effects.write(client, effects, namespace);
    });
  }

  async holes(seqs: readonly Seq[]): Promise<ReadonlySet<Seq>> {
    if (seqs.length === 0) return new Set();
    const { rows } = await this.#pool.query<{ seq: string }>(
      'SELECT hole AS seq FROM headwater.processor_offsets, unnest(holes) AS hole WHERE processor = $1 AND hole = ANY($2::bigint[])',
      [this.#processor, seqs],
    );
    return new Set(rows.map(({ seq }) => Number(seq)));
  }

  /**
   * Moves the offset and does what has to be done with it, in one transaction; without a `next` there is no offset
   * afterwards, and the processor begins anew.
   */
  change(
    expected: Offset,
    next: Offset | undefined,
    work: (client: Queryable, namespace: string) => Promise<void>,
  ): Promise<CommitOutcome> {
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
    work: (client: Queryable, namespace: string) => Promise<void>,
  ): Promise<CommitOutcome> {
    const client = await this.#pool.connect();
    try {
      await client.query(begin);
      const holds = this.#guard === undefined || (await this.#guard(client));
      const namespace = holds ? await this.#exchange(client, expected, next, head) : undefined;
      if (namespace !== undefined) await work(client, namespace);
      await client.query(namespace === undefined ? 'ROLLBACK' : 'COMMIT');
      client.release();
      return outcomeOf(namespace !== undefined);
    } catch (error) {
      // Without the connection there is no transaction either, unless it is just being committed: the next comparison waits for that.
      client.release(true);
      throw error;
    }
  }

  /** The namespace of the state; undefined when the offset is not the expected one. */
  async #exchange(
    on: PgPool | PgPoolClient,
    expected: Offset | undefined,
    next: Offset | undefined,
    head: string | null,
  ): Promise<string | undefined> {
    const stored = expected ? [expected.seq, expected.epoch, expected.namespace ?? null] : [];
    const wanted = next ? [next.seq, next.epoch, head] : [];
    const statement = next ? (expected ? compareAndSet : setFirst) : forget;
    const { rows } = await on.query<{ namespace: string | null }>(statement, [this.#processor, ...stored, ...wanted]);
    return rows[0] && (rows[0].namespace ?? this.#processor);
  }
}

function offsetOf({ seq, epoch, redriven, namespace }: OffsetRow): Offset | undefined {
  if (seq === null || epoch === null) return undefined;
  return { seq: Number(seq), epoch, ...(redriven !== null && { redriven }), ...(namespace !== null && { namespace }) };
}

function outcomeOf(moved: boolean): CommitOutcome {
  return moved ? 'committed' : 'lost';
}

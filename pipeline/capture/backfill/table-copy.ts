import { usage } from '../../runtime/errors.ts';
import { keyTexts } from '../../source/table-reader.ts';
import type { CopyState } from '../log-record.ts';
import { readMoved } from './moved-rows.ts';
import { prime } from './priming.ts';
import type { Chunk } from './reader.ts';
import { StepAside, type BackfillOptions, type Run } from './run.ts';
import { Transfer } from './transfer.ts';

/** After so many chunks of a condition that were begun and never came to an end, one after the other, it is given up. */
const maxTries = 5;

/**
 * Copies a table's rows into the log while changes stream, from the place that its state says to the table's end, a chunk at a time
 * in the order of the primary key.
 *
 * A chunk is read in a repeatable-read transaction whose snapshot is kept, and logged once the log has passed the position
 * taken after it. A row is left out if a logged transaction that the snapshot does not see has changed it: then the log
 * already has something newer; of a row whose change came without its large values, they are logged with what is newer.
 * Progress is kept for each chunk, so a crash repeats one at most.
 */
export class TableCopy {
  readonly #options: BackfillOptions;
  readonly #transfer: Transfer;

  constructor(options: BackfillOptions) {
    this.#options = options;
    this.#transfer = new Transfer(options);
  }

  /** Ends when the table is copied, or the run is interrupted. Throws `StepAside`, and what the database and the log answer. */
  async copy(run: Run): Promise<void> {
    run.atPlace = true;
    await prime(this.#options, run);
    await this.#noteTry(run);
    await this.#estimate(run);
    for (let again = 0; !run.interrupt.aborted;) {
      const came = await this.#chunk(run);
      // `anew`: at once, from the table's beginning.
      if (came === 'end' || came === 'interrupted') return;
      if (came === 'on') {
        again = 0;
        await run.pace.wait(run.interrupt);
      } else if (came === 'unknown') {
        // Perhaps they are too many each time, since reading takes long.
        run.reader.readLess(run.state.where);
        // The condition has come to its end.
        run.state = { ...run.state, attempts: undefined };
        await run.waitUntilVisible(again++);
        // What follows logs nothing until they are visible, so nothing is repeated when others go first.
        if (run.isStuck) throw new StepAside();
      }
    }
  }

  /**
   * Copies the next chunk.
   * @returns `unknown` when the log has changes, not visible yet, of which it is not known any more which rows they concern; `anew` when
   * the copy goes back to the table's beginning
   */
  async #chunk(run: Run): Promise<'on' | 'end' | 'interrupted' | 'unknown' | 'anew'> {
    const { log, tracker } = this.#options;
    const { name } = run.table;
    const begun = performance.now();
    const found = await this.#transfer.read(run, (onSnapshot) => run.reader.read(run.state, onSnapshot));
    if (!found) return 'interrupted';
    const { first, snapshot } = found.chunk;
    if (first) tracker.beginMoved(name, snapshot);
    if (!run.state.begun) await this.#begin(run);
    run.atPlace = false;
    const inserted = first && tracker.lostMoved(name) ? undefined : await this.#transfer.insert(run, found);
    if (inserted === undefined) return 'unknown';
    const { chunk, logged } = inserted;
    if (chunk === found.chunk) run.reader.readMore();
    else run.reader.readLess(run.state.where);
    const moved = await readMoved(run, chunk, this.#transfer, tracker);
    if (moved.keptBy !== undefined) {
      this.#count(chunk, logged + moved.logged, (performance.now() - begun) / 1_000);
      await this.#reachWithoutMoved(run, chunk, logged + moved.logged);
      if (moved.keptBy === 'stuck') throw new StepAside();
      return 'interrupted';
    }
    if (tracker.lostMoved(name)) {
      run.beginAnew('too many of its rows have got another key meanwhile');
      return 'anew';
    }
    this.#count(chunk, logged + moved.logged, (performance.now() - begun) / 1_000);
    await this.#reach(run, chunk, logged + moved.logged);
    const { rows, total } = run.state;
    log.debug({ table: name, rows, of: total, chunk: chunk.rows.length, bytes: chunk.bytes }, 'backfill');
    if (chunk.next) return 'on';
    log.info({ table: name, rows }, 'backfill complete');
    return 'end';
  }

  /** Notes that a chunk is done: from here another session would go on. */
  async #reach(run: Run, { rows, next, key }: Chunk, logged: number): Promise<void> {
    const { record, tracker } = this.#options;
    const { name } = run.table;
    const { state } = run;
    const counts = counted(run, rows.length, logged);
    if (!next) await this.#transfer.writer.mark({ phase: 'end', table: name, rows: counts.rows });
    const moved = tracker.moved(name);
    // What another session has to know of the log up to here.
    const passed = { seq: run.seq, moved: moved.length > 0 ? moved : undefined };
    const place = { state: next ? 'running' : 'done', after: next, key: next && key } as const;
    const reached: CopyState = { ...state, ...counts, ...place, ...passed, note: undefined, attempts: undefined };
    await record.putCopy(reached);
    run.state = reached;
    run.atPlace = true;
    run.movedOnAt = performance.now();
  }

  /**
   * Notes that a chunk's rows are logged, and that rows which have moved behind it are not: whoever goes on reads from the log again
   * which these are. Behind the last chunk comes one without rows.
   */
  async #reachWithoutMoved(run: Run, chunk: Chunk, logged: number): Promise<void> {
    const { state } = run;
    const { rows, next, first, key } = chunk;
    const last = rows.at(-1);
    const after = next ?? (last ? keyTexts(chunk.table, last) : first ? undefined : state.after);
    const seq = (state.after && state.seq) ?? run.primed;
    run.state = { ...state, ...counted(run, rows.length, logged), state: 'running', after, key: after && key, seq, attempts: undefined };
    await this.#options.record.putCopy(run.state);
    run.atPlace = true;
  }

  #count({ rows }: Chunk, logged: number, seconds: number): void {
    const { metrics } = this.#options;
    metrics.rows.inc(logged);
    metrics.chunks.inc();
    metrics.chunkRows.set(rows.length);
    metrics.chunkSeconds.observe(seconds);
  }

  /**
   * A function in a condition may end connections, capture's own too: what was begun is noted before, so that no session begins
   * it again for ever.
   */
  async #noteTry(run: Run): Promise<void> {
    const { where, attempts = 0 } = run.state;
    if (where === undefined || run.interrupt.aborted) return;
    if (attempts >= maxTries)
      throw usage('condition_ends_session', `${attempts} times the connection, or capture's session, ended when the condition was asked`);
    run.state = { ...run.state, attempts: attempts + 1 };
    await this.#options.record.putCopy(run.state);
  }

  async #estimate(run: Run): Promise<void> {
    const { where, total } = run.state;
    if (run.estimated || (where === undefined && total)) return;
    const estimate = await run.unlocked(() => run.reader.estimate(where));
    if (estimate === undefined) return;
    run.state = { ...run.state, total: estimate };
    run.estimated = true;
  }

  async #begin(run: Run): Promise<void> {
    const { table, state } = run;
    const large = table.size > this.#options.largeAbove;
    // One that was begun by a version that did not note it has its mark.
    if (state.state !== 'running')
      await this.#transfer.writer.mark({
        phase: 'begin',
        table: table.name,
        ...(state.where ? { where: state.where } : {}),
        ...(large ? { large } : {}),
      });
    run.state = { ...state, begun: true };
    // Whoever goes on after a crash, or gives it up before the first chunk is done, has to know.
    await this.#options.record.putCopy(run.state);
  }
}

/** The numbers of a copy with those of one more chunk. */
function counted({ state, pace }: Run, read: number, logged: number): Pick<CopyState, 'rows' | 'speed'> & { readonly read: number } {
  return { rows: state.rows + logged, read: (state.read ?? state.rows) + read, speed: pace.passed(read) };
}

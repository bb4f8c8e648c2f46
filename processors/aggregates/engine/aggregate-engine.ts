import type { LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import type { Definition } from '../model.ts';
import { Batch } from './batch.ts';
import type { AggregateEffects, EngineMeta } from './effects.ts';
import type { Entry, RowState } from './memory.ts';
import type { Loaded, Needs } from './needs.ts';
import { Preparation } from './preparation.ts';
import { contributionOf, EventReader, type LeftOut, type Reading, type RowReading } from './reading.ts';
import { State } from './state.ts';
import type { Window } from './window.ts';

export interface EngineOptions {
  /** Most windows, points, values and rows that stay in memory, beyond what is not committed yet (default 200,000). */
  readonly mostRecords?: number;
}

type Windows = readonly (Window | undefined)[];

/**
 * Folds the events of a table into the windows of a definition. It does no input or output:
 * - once a session: `reset()`, then `restore(meta)` with the stored `meta`
 * - before a batch is applied, what it needs is loaded:
 *   `const steps = engine.prepare(events); for (let step = steps.next(); !step.done;) step = steps.next(await load(step.value));`
 * - `effects = engine.begin()`, `engine.apply(event, effects)`, and `effects.seal()` when they are committed
 * - after each commit: `engine.committed(seq)`. Only what is committed may leave memory.
 */
export class AggregateEngine {
  readonly #state: State;
  readonly #reader: EventReader;
  readonly #leftOut: Record<LeftOut, number> = { not_a_number: 0, no_time: 0, too_old: 0, unchanged: 0, omitted: 0 };
  #numbers: readonly string[] = [];
  #prepared: ReadonlyMap<LogEvent, Reading> = new Map();

  constructor(definition: Definition, { mostRecords = 200_000 }: EngineOptions = {}) {
    this.#state = new State(definition, mostRecords);
    this.#reader = new EventReader(definition);
  }

  /** How many observations were left out so far, by reason; only grows. */
  get leftOut(): Readonly<Record<LeftOut, number>> {
    return this.#leftOut;
  }

  /** Forgets everything: the store may hold something else. */
  reset(): void {
    this.#state.reset();
    this.#prepared = new Map();
    this.#know([]);
  }

  /** @param meta of the last effects that were committed; undefined when there are none */
  restore(meta: EngineMeta | undefined): void {
    this.#state.restore(meta?.logTime ?? 0, meta?.oldest ?? []);
    this.#know(meta?.numbers ?? []);
  }

  /** Asks for what applying these events takes; each answer is to be read in one atomic step with the offset. */
  *prepare(events: readonly LogEvent[]): Generator<Needs, void, Loaded> {
    const state = this.#state;
    state.prepare(events.length);
    // Events of the schema that were read before and not applied are read again.
    this.#know(this.#numbers);
    const preparation = new Preparation(state, this.#reader);
    this.#prepared = preparation.readings;
    yield* preparation.run(events);
  }

  /** Begins a batch, and ends the one before. */
  begin(): AggregateEffects {
    const { batches } = this.#state;
    batches.at(-1)?.seal();
    const batch = new Batch(() => this.#finish());
    batches.push(batch);
    return batch;
  }

  /**
   * Folds an event into the effects that were begun last.
   * @throws HeadwaterError `bad_event`, `unknown_op`; `no_primary_key` when the rows of `rows` cannot be told apart
   */
  apply(event: LogEvent, effects: AggregateEffects): void {
    const batch = this.#state.batches.at(-1);
    if (!batch || batch !== effects || batch.sealed) throw new Error('these are not the effects that were begun last');
    const reading = this.#prepared.get(event) ?? this.#reader.read(event);
    const { seq } = event;
    const state = this.#state;
    switch (reading.kind) {
      case 'schema':
        this.#numbers = reading.numbers;
        break;
      case 'truncate':
        this.#clear(seq);
        break;
      case 'row':
        this.#row(reading, seq, batch);
        break;
      case 'none':
    }
    if (reading.at !== undefined && reading.at > state.logTime) state.logTime = reading.at;
    batch.last = seq;
  }

  /** Everything up to this sequence is in the store. */
  committed(seq: Seq): void {
    this.#state.commit(seq);
  }

  #row(reading: RowReading, seq: Seq, batch: Batch): void {
    const state = this.#state;
    const here = this.#rowState(reading.here, reading.row);
    const there = this.#rowState(reading.there, reading.rowBefore);
    const given = contributionOf(reading, (there ?? here)?.entry);
    let next = typeof given === 'object' ? given : undefined;
    const [before, elsewhere] = [here?.entry, there?.entry];
    // Everything that can fail comes first.
    const [coming, going, leaving] = [
      next && this.#windowsOf(next),
      before && this.#windowsOf(before),
      elsewhere && this.#windowsOf(elsewhere),
    ];
    state.logTime = Math.max(state.logTime, reading.at);
    if (typeof given === 'string') this.#leftOut[given]++;
    if (next && !this.#isKept(coming!)) {
      this.#leftOut.too_old++;
      next = undefined;
    }
    if (there && elsewhere) {
      this.#takeOut(elsewhere, leaving!, seq, batch);
      this.#setRow(reading.rowBefore!, there, undefined, seq, batch);
    }
    if (before && next && isSame(before, next)) return;
    if (before) this.#takeOut(before, going!, seq, batch);
    if (next) this.#putIn(next, coming!, seq, batch);
    if (here && (before || next)) this.#setRow(reading.row, here, next, seq, batch);
  }

  /** What is known of a row; undefined of `changes`, which have none. */
  #rowState(prepared: RowState | undefined, row: string | undefined): RowState | undefined {
    if (row === undefined || this.#state.definition.of === 'changes') return undefined;
    const state = prepared ?? this.#state.row(row);
    if (!state.known) throw new Error(`the row ${row} was not prepared`);
    return state;
  }

  #setRow(row: string, state: RowState, entry: Entry | undefined, seq: Seq, batch: Batch): void {
    state.entry = entry;
    state.changed = seq;
    batch.setRow(row, entry);
  }

  /** The windows of a contribution by level, as far as they are kept. */
  #windowsOf(entry: Entry): Windows {
    const windows = entry.windows ?? this.#state.windowsOf(entry);
    entry.windows = undefined;
    for (const window of windows)
      if (window && !window.known) throw new Error(`the window ${window.index} of ${window.group.text} was not prepared`);
    return windows;
  }

  #isKept(windows: Windows): boolean {
    return windows.some((window) => window && !this.#state.isExpired(window.level, window.index));
  }

  #putIn(entry: Entry, windows: Windows, seq: Seq, batch: Batch): void {
    const state = this.#state;
    const { levels, definition } = state;
    for (const window of windows) {
      if (!window || state.isExpired(window.level, window.index)) continue;
      touch(window, seq, batch);
      window.add(entry, definition.percentiles);
    }
    const pane = windows[0];
    if (pane?.revision !== seq) batch.addChanged({ group: entry.group, index: levels.indexOf(0, entry.at), seq });
    else if (definition.of === 'rows') {
      (pane.change!.points ??= new Map()).set(entry.id, entry);
      pane.points?.set(entry.id, entry);
    }
  }

  #takeOut(entry: Entry, windows: Windows, seq: Seq, batch: Batch): void {
    const state = this.#state;
    const { levels, definition } = state;
    for (const window of windows) {
      if (!window || state.isExpired(window.level, window.index)) continue;
      touch(window, seq, batch);
      const was = window.lost;
      window.remove(entry, definition.percentiles);
      if (window.lost && !was) state.lose(window);
    }
    const pane = windows[0];
    // Also of a pane that is kept no longer: when it is removed, rows that are still in it go.
    if (pane?.revision !== seq) batch.dropPoint(entry.group, levels.indexOf(0, entry.at), entry.id);
    else {
      (pane.change!.points ??= new Map()).set(entry.id, undefined);
      pane.points?.delete(entry.id);
    }
  }

  #clear(seq: Seq): void {
    this.#state.clear(seq);
    // What was prepared is of rows and windows that are no more.
    for (const reading of this.#prepared.values()) {
      if (reading.kind !== 'row') continue;
      reading.here = reading.there = undefined;
      if (typeof reading.given === 'object') reading.given.windows = undefined;
    }
  }

  #finish(): EngineMeta {
    this.#state.settle();
    return { logTime: this.#state.logTime, numbers: this.#numbers, oldest: this.#state.noteOldest() };
  }

  #know(numbers: readonly string[]): void {
    this.#numbers = numbers;
    this.#reader.numbers = new Set(numbers);
  }
}

function touch(window: Window, seq: Seq, batch: Batch): void {
  batch.touch(window);
  window.revision = seq;
  window.changed = seq;
}

function isSame(a: Entry, b: Entry): boolean {
  return a.group === b.group && a.at === b.at && a.id === b.id && a.value === b.value;
}

import { expect } from 'chai';
import type { LogEvent, NewEvent, Seq } from '../../../../pipeline/log/event-log.ts';
import { AggregateEngine } from '../../../../processors/aggregates/engine/aggregate-engine.ts';
import { grow } from '../../../../processors/aggregates/engine/distribution.ts';
import type {
  AggregateEffects,
  Contribution,
  EngineMeta,
  RowPoint,
  SealedEffects,
} from '../../../../processors/aggregates/engine/effects.ts';
import type { Loaded, Needs } from '../../../../processors/aggregates/engine/needs.ts';
import type { Definition, WindowRecord } from '../../../../processors/aggregates/model.ts';

/** What a window is in the store. */
export interface StoredWindow {
  record: WindowRecord;
  readonly values: Map<string, number>;
  readonly buckets: Map<string, number>;
}

const windowName = (level: number, group: string, index: number): string => `${level}:${index}:${group}`;

/** Does in memory what the store does in Redis, and checks that what it is told fits what it has. */
export class EngineStore {
  seq: Seq = 0;
  meta: EngineMeta | undefined;
  readonly windows = new Map<string, StoredWindow>();
  readonly rows = new Map<string, Contribution>();
  readonly points = new Map<string, Map<string, RowPoint>>();

  window(level: number, group: string, index: number): StoredWindow | undefined {
    return this.windows.get(windowName(level, group, index));
  }

  newest(group: string): (number | undefined)[] {
    const newest: (number | undefined)[] = [undefined, undefined, undefined, undefined, undefined, undefined];
    for (const name of this.windows.keys()) {
      const [level, index] = name.split(':', 2).map(Number) as [number, number];
      if (name === windowName(level, group, index)) newest[level] = Math.max(newest[level] ?? -Infinity, index);
    }
    return newest;
  }

  load({ rows, windows, newest, points, values }: Needs): Loaded {
    return {
      seq: this.seq,
      rows: rows.map((row) => this.rows.get(row)),
      windows: windows.map(({ level, group, indexes }) => indexes.map((index) => this.window(level, group, index)?.record)),
      newest: newest.map((group) => this.newest(group)),
      points: points.map(({ group, index }) => new Map(this.points.get(`${index}:${group}`))),
      values: values.map(({ level, group, index }) => new Map(this.window(level, group, index)?.values)),
    };
  }

  commit(effects: SealedEffects, seq: Seq): void {
    if (effects.cleared !== undefined) for (const all of [this.windows, this.rows, this.points]) all.clear();
    for (const change of effects.windows) this.#change(change);
    for (const [row, contribution] of effects.rows) put(this.rows, row, contribution);
    for (const { group, index, points } of effects.points) {
      const name = `${index}:${group}`;
      const stored = this.points.get(name) ?? new Map<string, RowPoint>();
      for (const [id, point] of points) put(stored, id, point);
      put(this.points, name, stored.size > 0 ? stored : undefined);
    }
    this.meta = effects.meta;
    this.seq = seq;
  }

  #change({ level, group, index, record, fresh, values, buckets, anew }: SealedEffects['windows'][number]): void {
    const name = windowName(level, group, index);
    const stored = this.windows.get(name);
    expect(fresh, `${name} is fresh`).to.equal(record !== undefined && stored === undefined);
    if (!record) {
      expect(stored, `${name} goes`).not.to.equal(undefined);
      this.windows.delete(name);
      return;
    }
    const window: StoredWindow = stored ?? { record, values: new Map(), buckets: new Map() };
    window.record = record;
    if (anew) for (const counts of [window.values, window.buckets]) counts.clear();
    for (const [value, by] of values ?? []) grow(window.values, value, by);
    for (const [bucket, by] of buckets ?? []) grow(window.buckets, bucket, by);
    this.windows.set(name, window);
  }
}

/** How a log is cut: after so many events the next read batch, the next set of effects, and the commit of the oldest one. */
export interface Cuts {
  readonly read: readonly number[];
  readonly effects: readonly number[];
  /** So many sets of effects wait for their commit. */
  readonly underWay: number;
  /** After so many events everything in memory is lost, once. */
  readonly restart: number;
  readonly mostRecords: number;
}

export const oneByOne: Cuts = { read: [1], effects: [1], underWay: 0, restart: Infinity, mostRecords: 1_000 };

/** Applies events from sequence 1 (or the one after `after`) on, as a session of the runner does. */
export function runEngine(
  definition: Definition,
  events: readonly NewEvent[],
  cuts: Cuts,
  store = new EngineStore(),
  after: Seq = 0,
): EngineStore {
  const log = events.map((event, n): LogEvent => ({ ...event, seq: after + n + 1 }));
  const run = new EngineRun(definition, cuts, store);
  for (let at = 0, n = 0; at < log.length; n++) {
    const size = cuts.read[n % cuts.read.length]!;
    at = run.read(log.slice(at, at + size)) ?? at + size;
  }
  run.flush();
  return store;
}

class EngineRun {
  readonly #cuts: Cuts;
  readonly #store: EngineStore;
  readonly #engine: AggregateEngine;
  #filling: { readonly effects: AggregateEffects; size: number; last: Seq } | undefined;
  #underWay: { readonly effects: AggregateEffects; readonly last: Seq }[] = [];
  #filled = 0;
  #untilRestart: number;

  constructor(definition: Definition, cuts: Cuts, store: EngineStore) {
    this.#cuts = cuts;
    this.#store = store;
    this.#engine = new AggregateEngine(definition, { mostRecords: cuts.mostRecords });
    this.#untilRestart = cuts.restart;
    this.#engine.reset();
    this.#engine.restore(store.meta);
  }

  /** Applies a batch. After a restart: the position in the log to go on from. */
  read(events: readonly LogEvent[]): number | undefined {
    const steps = this.#engine.prepare(events);
    for (let step = steps.next(); !step.done;) {
      // A commit may arrive between question and answer, and between answer and use.
      if (this.#underWay.length > this.#cuts.underWay) this.#commitOne();
      const loaded = this.#store.load(step.value);
      if (this.#underWay.length > 1) this.#commitOne();
      step = steps.next(loaded);
    }
    for (const event of events) {
      this.#filling ??= { effects: this.#engine.begin(), size: 0, last: 0 };
      this.#engine.apply(event, this.#filling.effects);
      this.#filling.last = event.seq;
      if (++this.#filling.size >= this.#cuts.effects[this.#filled % this.#cuts.effects.length]!) this.#send();
      if (--this.#untilRestart === 0) return this.#restart();
    }
    return undefined;
  }

  flush(): void {
    if (this.#filling) this.#send();
    while (this.#underWay.length > 0) this.#commitOne();
  }

  #send(): void {
    this.#underWay.push(this.#filling!);
    this.#filling = undefined;
    this.#filled++;
    while (this.#underWay.length > this.#cuts.underWay) this.#commitOne();
  }

  #commitOne(): void {
    const { effects, last } = this.#underWay.shift()!;
    this.#store.commit(effects.seal(), last);
    this.#engine.committed(last);
  }

  #restart(): number {
    this.#filling = undefined;
    this.#underWay = [];
    this.#engine.reset();
    this.#engine.restore(this.#store.meta);
    return this.#store.seq;
  }
}

function put<T>(map: Map<string, T>, name: string, value: T | undefined): void {
  if (value === undefined) map.delete(name);
  else map.set(name, value);
}

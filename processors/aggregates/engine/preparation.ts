import type { LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { mostExactValues } from '../model.ts';
import { grow } from './distribution.ts';
import type { Entry, Group, RowState } from './memory.ts';
import type { Loaded, Needs } from './needs.ts';
import { contributionOf, type EventReader, type Reading, type RowReading } from './reading.ts';
import type { State } from './state.ts';
import { toPlace, type Place } from './value.ts';
import type { Window } from './window.ts';

/** Most records, or points and values, that one question asks for: nobody else gets a turn in the store while it is answered. */
const mostAsked = 10_000;

const nothing: Needs = { rows: [], windows: [], newest: [], points: [], values: [] };

/** A contribution that a batch takes out. */
interface Removal {
  readonly entry: Entry;
  /** The batch itself has put it in. */
  readonly young: boolean;
}

/**
 * Goes through a batch before it is applied, and asks for what applying it takes: the rows it names, the windows that these are in and will be in;
 * then, where an extreme of a window may go, what the next one is looked for in; and the values of windows that become sketches.
 */
export class Preparation {
  readonly #state: State;
  readonly #reader: EventReader;
  /** The events that could be read; the others fail again, and say why, when they are applied. */
  readonly readings = new Map<LogEvent, Reading>();
  readonly #touched: Window[] = [];
  readonly #removals: Removal[] = [];

  constructor(state: State, reader: EventReader) {
    this.#state = state;
    this.#reader = reader;
  }

  *run(events: readonly LogEvent[]): Generator<Needs, void, Loaded> {
    const rows: RowReading[] = [];
    for (const event of events) {
      const reading = this.#read(event);
      if (reading?.kind === 'row') rows.push(reading);
    }
    if (this.#state.definition.of === 'rows') yield* this.#loadRows(rows);
    this.#foresee(rows);
    yield* this.#loadWindows(this.#touched);
    const { points, parts } = this.#atRisk();
    yield* this.#loadWindows(parts);
    yield* this.#loadContents(points, this.#nearlyFull());
  }

  #read(event: LogEvent): Reading | undefined {
    try {
      const reading = this.#reader.read(event);
      this.readings.set(event, reading);
      return reading;
    } catch {
      return undefined;
    }
  }

  *#loadRows(readings: readonly RowReading[]): Generator<Needs, void, Loaded> {
    const wanted = new Set<string>();
    for (const reading of readings) {
      const { row, rowBefore } = reading;
      reading.here = this.#state.row(row);
      if (!reading.here.known) wanted.add(row);
      if (rowBefore === undefined) continue;
      reading.there = this.#state.row(rowBefore);
      if (!reading.there.known) wanted.add(rowBefore);
    }
    if (wanted.size === 0) return;
    const rows = [...wanted];
    const loaded = yield { ...nothing, rows };
    for (const [position, row] of rows.entries()) {
      const contribution = loaded.rows[position];
      const state = this.#state.row(row);
      state.known = true;
      if (contribution) state.entry = { ...toPlace(contribution), group: contribution.group, row, windows: undefined };
    }
  }

  /** What the batch will put in and take out, event by event. */
  #foresee(readings: readonly RowReading[]): void {
    const rows = new Map<string, Entry | undefined>();
    for (const reading of readings) {
      const { row, rowBefore, here, there } = reading;
      const before = here && this.#remove(here, rows, row);
      const elsewhere = there && this.#remove(there, rows, rowBefore!);
      const next = contributionOf(reading, there ? elsewhere : before);
      const entry = typeof next === 'object' ? next : undefined;
      if (entry) this.#touch(entry, 1);
      if (there) rows.set(rowBefore!, undefined);
      if (here) rows.set(row, entry);
    }
  }

  /** @param rows what the batch has made of them before */
  #remove({ entry: stored }: RowState, rows: ReadonlyMap<string, Entry | undefined>, row: string): Entry | undefined {
    const young = rows.has(row);
    const entry = young ? rows.get(row) : stored;
    if (!entry) return undefined;
    this.#touch(entry, 0);
    this.#removals.push({ entry, young });
    return entry;
  }

  #touch(entry: Entry, coming: 0 | 1): void {
    entry.windows = this.#state.windowsOf(entry);
    for (const window of entry.windows) {
      if (!window) continue;
      if (this.#use(window)) {
        window.coming = 0;
        this.#touched.push(window);
      }
      window.coming += coming;
    }
  }

  /** False when this preparation has used the window before. */
  #use(window: Window): boolean {
    const { generation } = this.#state;
    if (window.used === generation) return false;
    window.used = generation;
    return true;
  }

  *#loadWindows(windows: readonly Window[]): Generator<Needs, void, Loaded> {
    const unknown = windows.filter(({ known }) => !known);
    for (let at = 0; at < unknown.length; at += mostAsked) yield* this.#loadSomeWindows(unknown.slice(at, at + mostAsked));
  }

  *#loadSomeWindows(windows: readonly Window[]): Generator<Needs, void, Loaded> {
    const wanted = new Map<string, Window[]>();
    const groups = new Set<Group>();
    for (const window of windows) {
      if (!window.group.newest) groups.add(window.group);
      const name = `${window.level}:${window.group.text}`;
      const others = wanted.get(name);
      if (others) others.push(window);
      else wanted.set(name, [window]);
    }
    const lists = [...wanted.values()];
    const asked = [...groups];
    const loaded = yield {
      ...nothing,
      newest: asked.map(({ text }) => text),
      windows: lists.map((list) => ({ level: list[0]!.level, group: list[0]!.group.text, indexes: list.map(({ index }) => index) })),
    };
    for (const [position, list] of lists.entries()) for (const [n, window] of list.entries()) window.load(loaded.windows[position]![n]);
    for (const [position, group] of asked.entries()) group.newest = newestOf(group, loaded.newest[position]!);
  }

  /**
   * Where an extreme may go. What is not an extreme now and was there before the batch cannot become one without another's going,
   * which is then itself one of these; what the batch itself puts in may become anything.
   */
  #atRisk(): { readonly points: Window[]; readonly parts: Window[] } {
    const points = new Set<Window>();
    const parts = new Set<Window>();
    for (const { entry, young } of this.#removals) {
      const windows = entry.windows!;
      for (const window of windows) {
        if (!window || !(young || window.hasAsExtreme(entry))) continue;
        if (window.level > 0) this.#partsFor(window, windows[window.level - 1], parts);
        else if (!window.points && !knowsPoints(window)) points.add(window);
      }
    }
    return { points: [...points], parts: [...parts] };
  }

  /** @param part the one that the contribution is in */
  #partsFor(window: Window, part: Window | undefined, wanted: Set<Window>): void {
    if (part?.count === window.count) return;
    const { memory, levels } = this.#state;
    const known = this.#state.partsOf(window);
    let count = 0;
    for (const one of known) {
      this.#use(one);
      count += one.count;
    }
    if (count === window.count) return;
    const ratio = levels.ratio(window.level);
    for (let index = window.index * ratio; index < (window.index + 1) * ratio; index++) {
      const one = memory.window(window.group, window.level - 1, index);
      this.#use(one);
      if (!one.known) wanted.add(one);
    }
  }

  /** Windows that may get more values than are kept one by one. */
  #nearlyFull(): Window[] {
    if (!this.#state.definition.percentiles) return [];
    return this.#touched.filter(({ sketched, values, count, coming }) => !sketched && !values && count + coming > mostExactValues);
  }

  *#loadContents(points: readonly Window[], values: readonly Window[]): Generator<Needs, void, Loaded> {
    for (const some of portions(points)) {
      const loaded = yield { ...nothing, points: some.map(({ group, index }) => ({ group: group.text, index })) };
      for (const [position, window] of some.entries()) {
        const stored = new Map<string, Place>();
        for (const [id, point] of loaded.points[position]!) stored.set(id, toPlace(point));
        window.points = this.#pointsSince(loaded.seq, window, stored);
        this.#state.memory.grew(window.points.size);
      }
    }
    for (const some of portions(values)) {
      const loaded = yield { ...nothing, values: some.map(({ level, group, index }) => ({ level, group: group.text, index })) };
      for (const [position, window] of some.entries()) {
        window.values = this.#valuesSince(loaded.seq, window, new Map(loaded.values[position]));
        this.#state.memory.grew(window.values.size);
      }
    }
  }

  /** The points of a pane as they are now: what was read, and what batches have changed that were not in the store then. */
  #pointsSince(seq: Seq, window: Window, points: Map<string, Place>): Map<string, Place> {
    for (const { last, sealed } of this.#state.batches) {
      if (!sealed || last <= seq) continue;
      if (sealed.cleared !== undefined) points.clear();
      for (const change of sealed.points) {
        if (change.group !== window.group.text || change.index !== window.index) continue;
        for (const [id, point] of change.points) put(points, id, point && toPlace(point));
      }
    }
    for (const [id, point] of window.change?.points ?? []) put(points, id, point);
    return points;
  }

  #valuesSince(seq: Seq, window: Window, values: Map<string, number>): Map<string, number> {
    for (const { last, sealed } of this.#state.batches) {
      if (!sealed || last <= seq) continue;
      if (sealed.cleared !== undefined) values.clear();
      for (const { level, group, index, record, anew, values: changes } of sealed.windows) {
        if (level !== window.level || group !== window.group.text || index !== window.index) continue;
        if (!record || anew) values.clear();
        for (const [value, by] of changes ?? []) grow(values, value, by);
      }
    }
    for (const [value, by] of window.change?.values ?? []) grow(values, value, by);
    return values;
  }
}

/** What the store has, and what has been made since. */
function newestOf({ levels }: Group, stored: readonly (number | undefined)[]): number[] {
  return levels.map((windows, level) => Math.max(stored[level] ?? -Infinity, ...windows.keys()));
}

/** Windows in order, as many at once as have not too many points or values together; one that has more by itself is alone. */
function* portions(windows: readonly Window[]): Generator<readonly Window[]> {
  let some: Window[] = [];
  let size = 0;
  for (const window of windows) {
    if (some.length > 0 && size + window.count > mostAsked) {
      yield some;
      [some, size] = [[], 0];
    }
    some.push(window);
    size += window.count;
  }
  if (some.length > 0) yield some;
}

/** Two points are a window's first and last. */
function knowsPoints(window: Window): boolean {
  const { count, open, close } = window;
  if (count > 2) return false;
  window.points = new Map();
  if (open && close) for (const place of [open, close]) window.points.set(place.id, place);
  return true;
}

function put(points: Map<string, Place>, id: string, place: Place | undefined): void {
  if (place) points.set(id, place);
  else points.delete(id);
}

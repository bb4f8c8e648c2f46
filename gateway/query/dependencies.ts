import { createHash } from 'node:crypto';
import type { Seq } from '../../pipeline/log/event-log.ts';
import { textOf } from '../../schemas/filter.ts';
import type { Dependency } from './model.ts';

type Row = Readonly<Record<string, unknown>>;

/** The rows of an event: as much of it as says which rows it changed. */
export interface ChangedRow {
  readonly key?: Row;
  readonly before?: Row;
  readonly after?: Row;
}

/** An event that changes a table. `truncate` and `schema` change all of it. */
export interface TableChange {
  readonly seq: Seq;
  /** `<schema>.<table>`. */
  readonly table: string;
  readonly op: string;
  /** Undefined when the event cannot be understood; asked only when somebody depends on some rows of the table. */
  readonly row: () => ChangedRow | undefined;
}

export interface DependencyLimits {
  readonly tables: number;
  /** Sets of pinned columns, over all tables. */
  readonly pinned: number;
  /** Combinations of values that are remembered, over all of them. */
  readonly combinations: number;
}

const defaultLimits: DependencyLimits = { tables: 100_000, pinned: 64, combinations: 500_000 };
const longCombination = 120;

/** The last change of each combination of values in some columns of a table. */
interface PinIndex {
  readonly table: string;
  readonly columns: readonly string[];
  /** Of combinations that are not in `last`, no change after this sequence is known. */
  floor: Seq;
  /** The longest unchanged comes first. */
  readonly last: Map<string, Seq>;
}

/**
 * When what an answer depends on was last changed: by table, and for rows that are named by values of the replica identity, by these.
 * It says too late rather than too early: what it does not remember counts as changed when it last might have been.
 */
export class DependencyIndex {
  readonly #limits: DependencyLimits;
  /** Nothing is known of events up to here. */
  #floor: Seq = 0;
  readonly #tables = new Map<string, Seq>();
  readonly #pinsOf = new Map<string, Set<PinIndex>>();
  /** By table and columns; the longest unused comes first. */
  readonly #pins = new Map<string, PinIndex>();
  #combinations = 0;

  constructor(limits: Partial<DependencyLimits> = {}) {
    this.#limits = { ...defaultLimits, ...limits };
  }

  /** Begins anew behind a sequence; `Infinity`: everything may have changed. */
  reset(floor: Seq): void {
    this.#floor = floor;
    this.#tables.clear();
    this.#pinsOf.clear();
    this.#pins.clear();
    this.#combinations = 0;
  }

  note(change: TableChange): void {
    const { table, seq } = change;
    this.#tables.set(table, seq);
    if (this.#tables.size > this.#limits.tables) this.reset(seq);
    const indexes = this.#pinsOf.get(table);
    if (!indexes) return;
    const whole = change.op === 'truncate' || change.op === 'schema';
    const row = whole ? undefined : change.row();
    for (const index of indexes) {
      const changed = row && combinationsOf(change.op, row, index.columns);
      if (!changed) this.#wholeTable(index, seq);
      else for (const combination of changed) this.#remember(index, combination, seq);
    }
  }

  /** The sequence of the last event that can have changed what the answer depends on; it may be later than that event, never earlier. */
  last({ table, pins }: Dependency): Seq {
    const ofTable = this.#tables.get(table) ?? this.#floor;
    if (!pins) return ofTable;
    const index = this.#indexFor(table, pins.columns, ofTable);
    let last = 0;
    for (const values of pins.values) last = Math.max(last, index.last.get(nameOf(values)) ?? index.floor);
    return Math.min(ofTable, pins.values.length === 0 ? index.floor : last);
  }

  #indexFor(table: string, columns: readonly string[], floor: Seq): PinIndex {
    const name = JSON.stringify([table, ...columns]);
    let index = this.#pins.get(name);
    if (index) this.#pins.delete(name);
    else {
      index = { table, columns, floor, last: new Map() };
      const ofTable = this.#pinsOf.get(table);
      if (ofTable) ofTable.add(index);
      else this.#pinsOf.set(table, new Set([index]));
    }
    this.#pins.set(name, index);
    if (this.#pins.size > this.#limits.pinned) this.#drop(this.#pins.entries().next().value!);
    return index;
  }

  #drop([name, index]: readonly [string, PinIndex]): void {
    this.#pins.delete(name);
    this.#combinations -= index.last.size;
    const ofTable = this.#pinsOf.get(index.table)!;
    ofTable.delete(index);
    if (ofTable.size === 0) this.#pinsOf.delete(index.table);
  }

  #wholeTable(index: PinIndex, seq: Seq): void {
    this.#combinations -= index.last.size;
    index.last.clear();
    index.floor = seq;
  }

  #remember(index: PinIndex, combination: string, seq: Seq): void {
    // To the end of the map.
    if (!index.last.delete(combination)) this.#combinations++;
    index.last.set(combination, seq);
    if (this.#combinations <= this.#limits.combinations) return;
    const [oldest, changedAt] = index.last.entries().next().value!;
    index.last.delete(oldest);
    this.#combinations--;
    index.floor = Math.max(index.floor, changedAt);
  }
}

/** The combinations of values whose rows an event changed; undefined when it does not tell. */
function combinationsOf(op: string, { key, before, after }: ChangedRow, columns: readonly string[]): readonly string[] | undefined {
  let rows: readonly (Row | undefined)[];
  if (op === 'insert' || op === 'read') rows = [after];
  else if (op === 'delete') rows = [before ?? key];
  else if (op !== 'update') return undefined;
  else if (before) rows = [before, after];
  // Without the old row, only the key is known to be as it was.
  else if (key && columns.every((column) => Object.hasOwn(key, column))) rows = [key];
  else return undefined;
  const combinations: string[] = [];
  for (const row of rows) {
    const values = row && valuesOf(row, columns);
    if (!values) return undefined;
    if (!values.includes(null)) combinations.push(nameOf(values as readonly string[]));
  }
  return combinations;
}

/** Null stands for SQL NULL, which equals nothing. Undefined when the row does not have them all. */
function valuesOf(row: Row, columns: readonly string[]): readonly (string | null)[] | undefined {
  const values: (string | null)[] = [];
  for (const column of columns) {
    if (!Object.hasOwn(row, column)) return undefined;
    const value = row[column];
    const text = value === null ? null : textOf(value);
    if (text === undefined) return undefined;
    values.push(text);
  }
  return values;
}

function nameOf(values: readonly string[]): string {
  const name = JSON.stringify(values);
  return name.length <= longCombination ? name : createHash('sha256').update(name).digest('base64url');
}

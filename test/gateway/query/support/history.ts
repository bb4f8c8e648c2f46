import { expect } from 'chai';
import type { Row, StoredEvent } from '../../../pipeline/capture/support/stored-events.ts';

/** A row from an event on; undefined while there is none. */
interface State {
  readonly seq: number;
  readonly row: Row | undefined;
}

/** An answer, and what was asked. */
export interface Observation {
  readonly what: string;
  /** `<schema>.<table>`. */
  readonly table: string;
  readonly matches: (row: Row) => boolean;
  readonly rows: readonly Row[];
  readonly asOf: number;
  readonly cache: 'hit' | 'miss';
  /** Where the log ended before it was asked. */
  readonly head: number;
}

/** Every state of every row, as the log tells it. */
export class History {
  readonly #tables = new Map<string, Map<string, State[]>>();

  constructor(events: readonly StoredEvent[]) {
    for (const event of events) {
      const { seq, table, op, key, before, after } = event;
      if (table === undefined) continue;
      if (!this.#tables.has(table)) this.#tables.set(table, new Map());
      const rows = this.#tables.get(table)!;
      if (op === 'truncate') for (const ofRow of rows.values()) ofRow.push({ seq, row: undefined });
      if (!key) continue;
      const name = keyText(key);
      const old = before && keyText(Object.fromEntries(Object.keys(key).map((column) => [column, before[column]])));
      if (old !== undefined && old !== name) statesOf(rows, old).push({ seq, row: undefined });
      statesOf(rows, name).push({ seq, row: op === 'delete' ? undefined : after });
    }
  }

  /**
   * Each row of the answer, and each that is not in it, must be as it was after its last event up to `asOf`, or as some later event made it;
   * a hit must hold what was in the log when it was asked for.
   */
  check({ what, table, matches, rows, asOf, cache, head }: Observation): void {
    const said = `${what}: ${cache} as of ${asOf}, asked at ${head}`;
    if (cache === 'hit' && asOf < head) expect.fail(`${said}: older than the log was`);
    const answered = new Map(rows.map((row) => [JSON.stringify([row['id']]), row]));
    const known = this.#tables.get(table)!;
    for (const [name, history] of known) {
      const row = answered.get(name);
      answered.delete(name);
      const from = Math.max(
        0,
        history.findLastIndex(({ seq }) => seq <= asOf),
      );
      // There was none before its first event.
      const possible = [...(history[from]!.seq > asOf ? [undefined] : []), ...history.slice(from).map((state) => state.row)];
      if (!possible.some((state) => same(row, state && matches(state) ? state : undefined)))
        expect.fail(`${said}: row ${name} is ${JSON.stringify(row)}, but should be one of ${JSON.stringify(possible.slice(0, 5))}`);
    }
    if (answered.size > 0) expect.fail(`${said}: rows that never were: ${JSON.stringify([...answered.values()])}`);
  }
}

function statesOf(rows: Map<string, State[]>, name: string): State[] {
  const found = rows.get(name);
  if (found) return found;
  const made: State[] = [];
  rows.set(name, made);
  return made;
}

/** Compares the columns that were asked for. */
function same(row: Row | undefined, state: Row | undefined): boolean {
  if (!row || !state) return row === state;
  return Object.entries(row).every(([column, value]) => state[column] === value);
}

function keyText(key: Row): string {
  return JSON.stringify(Object.values(key));
}

import { AlertEngine } from '../../../../../processors/alerts/engine/alert-engine.ts';
import { noEffects, type AlertEffects, type SavedClock } from '../../../../../processors/alerts/engine/saved.ts';
import type { Transition } from '../../../../../processors/alerts/model.ts';
import { logOf, type TestEvent } from './log.ts';

/** A store of an engine's state, as JSON, that does with effects what they say. */
export class Store {
  clock: SavedClock | undefined;
  readonly #records: Record<'tables' | 'rules' | 'entities' | 'samples' | 'episodes', Map<string, string>> = {
    tables: new Map(),
    rules: new Map(),
    entities: new Map(),
    samples: new Map(),
    episodes: new Map(),
  };

  commit(effects: AlertEffects): void {
    for (const stream of effects.forgotten.values()) {
      for (const name of ['entities', 'samples'] as const) {
        for (const [key, text] of this.#records[name]) {
          const { table, grouping } = JSON.parse(text) as { table: string; grouping: string };
          if (table === stream.table && grouping === stream.grouping) this.#records[name].delete(key);
        }
      }
    }
    for (const name of ['tables', 'rules', 'entities', 'samples', 'episodes'] as const) {
      for (const [key, record] of effects[name]) {
        if (record === undefined) this.#records[name].delete(key);
        else this.#records[name].set(key, JSON.stringify(record));
      }
    }
    this.clock = effects.clock ?? this.clock;
  }

  load(fewRules: number): AlertEngine {
    const engine = new AlertEngine({ fewRules });
    const all = <T>(name: 'tables' | 'rules' | 'entities' | 'samples' | 'episodes'): T[] =>
      [...this.#records[name].values()].map((text) => JSON.parse(text) as T);
    engine.reset(this.clock);
    engine.loadTables(all('tables'));
    engine.loadRules(all('rules'));
    engine.loadEntities(all('entities'));
    engine.loadSamples(all('samples'));
    engine.loadEpisodes(all('episodes'));
    return engine;
  }

  /** All that is stored but entities, of which what changes nothing need not be stored. */
  get contents(): readonly string[] {
    const { tables, rules, samples, episodes } = this.#records;
    return [tables, rules, samples, episodes].flatMap((map) => [...map].map((entry) => JSON.stringify(entry))).sort();
  }

  get sizes(): Readonly<Record<string, number>> {
    return Object.fromEntries(Object.entries(this.#records).map(([name, map]) => [name, map.size]));
  }
}

/** Transitions of a log, as lines like those of the naive evaluator. */
export function run(events: readonly TestEvent[], engine = new AlertEngine({ fewRules: 0 })): string[] {
  const effects = noEffects();
  const told: string[] = [];
  for (const event of logOf(events)) {
    engine.apply(event, effects);
    told.push(...effects.transitions.splice(0).map(lineOf));
  }
  return told;
}

/** As `run`, with the effects stored before each of the given events (by index), and the engine loaded anew if `reload`. */
export function runInterrupted(
  events: readonly TestEvent[],
  before: ReadonlySet<number>,
  { fewRules = 0, reload = true }: { readonly fewRules?: number; readonly reload?: boolean } = {},
): { readonly told: string[]; readonly store: Store } {
  const store = new Store();
  let engine = store.load(fewRules);
  let effects = noEffects();
  const told: string[] = [];
  for (const [i, event] of logOf(events).entries()) {
    if (before.has(i)) {
      store.commit(effects);
      effects = noEffects();
      if (reload) engine = store.load(fewRules);
    }
    engine.apply(event, effects);
    told.push(...effects.transitions.splice(0).map(lineOf));
  }
  store.commit(effects);
  return { told, store };
}

function lineOf({ alert }: Transition): string {
  const entity = Object.values(alert.entity)
    .map((value) => encodeURIComponent(String(value)))
    .join(':');
  const resolved = alert.state === 'resolved';
  const what = resolved ? `resolved ${alert.reason}` : 'firing';
  return `${resolved ? alert.resolvedSeq : alert.firedSeq} ${resolved ? alert.resolvedAt : alert.firedAt} ${alert.ruleId} ${entity} ${what} ${alert.id}`;
}

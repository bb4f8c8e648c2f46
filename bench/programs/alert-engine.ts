import type { LogEvent } from '../../pipeline/log/event-log.ts';
import { AlertEngine } from '../../processors/alerts/engine/alert-engine.ts';
import type { RuleRow, SavedRule } from '../../processors/alerts/engine/saved.ts';
import { order, tell } from './commits.ts';

/** How the rules are spread: all on every row, or each on one of the rows. */
type Spread = 'every row' | 'one row each';

export interface EngineLoad {
  readonly rules: number;
  readonly spread: Spread;
  readonly events: number;
  /** Rows that change in turn. */
  readonly rows: number;
  /** One in so many events passes thresholds, about one of them; the others pass none. */
  readonly crossEvery: number;
}

export interface EngineFigures {
  readonly loadSeconds: number;
  /** Resident memory of the process with its rules loaded, in MB. */
  readonly rssMb: number;
  readonly seconds: number;
  readonly eventsPerSecond: number;
  readonly transitions: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
  readonly worstMicros: number;
}

const table = 'public.prices';
const start = Date.UTC(2026, 0, 1);
/** Prices move between these; thresholds lie evenly above the lower one. */
const [low, high] = [1_000, 2_000];

tell(measure(await order<EngineLoad>()));

/** Measures the engine by itself: no log, no database. */
function measure(load: EngineLoad): EngineFigures {
  const engine = new AlertEngine();
  const began = performance.now();
  engine.reset({ seq: load.rules + 1, at: start * 1_000 });
  engine.loadTables([{ table, columns: { id: ['integer', 1], price: ['numeric', 1] } }]);
  engine.loadRules(rules(load));
  let seq = load.rules + 1;
  // Every row is met once: what is true then fires.
  const first = engine.begin();
  for (let id = 0; id < load.rows; id++) engine.apply(priceEvent(++seq, id, basePrice(load, id)), first);
  const loadSeconds = (performance.now() - began) / 1_000;
  const rssMb = process.memoryUsage.rss() / 1e6;
  return {
    loadSeconds,
    rssMb,
    ...changes(engine, load, seq),
  };
}

function changes(engine: AlertEngine, load: EngineLoad, from: number): Omit<EngineFigures, 'loadSeconds' | 'rssMb'> {
  let seq = from;
  let transitions = 0;
  const turns = new Map<number, number>();
  const micros = new Float64Array(load.events);
  let effects = engine.begin();
  const began = performance.now();
  for (let i = 0; i < load.events; i++) {
    const id = i % load.rows;
    if (i % load.crossEvery === 0) turns.set(id, (turns.get(id) ?? 0) + 1);
    const event = priceEvent(++seq, id, priceOf(load, id, turns.get(id) ?? 0, i));
    const at = performance.now();
    engine.apply(event, effects);
    micros[i] = (performance.now() - at) * 1_000;
    if (i % 1_000 !== 999) continue;
    transitions += effects.transitions.length;
    effects = engine.begin();
  }
  const seconds = (performance.now() - began) / 1_000;
  micros.sort();
  return {
    seconds,
    eventsPerSecond: load.events / seconds,
    transitions: transitions + effects.transitions.length,
    p50Micros: micros[load.events >> 1]!,
    p99Micros: micros[Math.floor(load.events * 0.99)]!,
    worstMicros: micros[load.events - 1]!,
  };
}

/** Rules that matter to one row. */
function rulesOfRow({ rules: count, spread, rows }: EngineLoad): number {
  return spread === 'every row' ? count : count / rows;
}

/** Below the lowest threshold but for those of one row in a hundred. */
function basePrice(load: EngineLoad, id: number): number {
  return priceOf(load, id, 0, 0);
}

/** Between two thresholds, and beyond the next one at every other turn; the last digits always change. */
function priceOf(load: EngineLoad, id: number, turn: number, i: number): number {
  const gap = (high - low) / Math.max(1, rulesOfRow(load));
  const place = low + gap * (1 + (id % 10) + 0.25 + (turn % 2));
  return place + gap * 0.25 * ((i % 97) / 97);
}

function priceEvent(seq: number, id: number, price: number): LogEvent {
  const at = new Date(start + seq).toISOString();
  const text = price.toFixed(9);
  const data = `{"v":1,"id":"${seq.toString(16).toUpperCase().padStart(16, '0')}.00000001","type":"price_update","op":"update","table":"${table}","key":{"id":${id}},"after":{"id":${id},"chain":"ethereum","price":"${text}","volume":"12345.67"},"tx":{"xid":${seq},"idx":0,"last":true},"at":"${at.slice(0, -1)}000Z"}`;
  return { seq, subject: `ev.${table}.update`, data: Buffer.from(data) };
}

function* rules(load: EngineLoad): Iterable<SavedRule> {
  const gap = (high - low) / Math.max(1, rulesOfRow(load));
  for (let i = 0; i < load.rules; i++) {
    const id = `${i.toString(16).padStart(8, '0')}-0000-4000-8000-000000000000`;
    const [row, nth] = load.spread === 'every row' ? [undefined, i] : [i % load.rows, Math.floor(i / load.rows)];
    // As it comes from Postgres: no two rules share a string.
    yield { id, seq: i + 1, row: JSON.parse(JSON.stringify(ruleRow(id, row, (low + gap * (nth + 1)).toFixed(6)))) as RuleRow };
  }
}

function ruleRow(id: string, row: number | undefined, threshold: string): RuleRow {
  return {
    id,
    user_id: `user-${id.slice(4, 8)}`,
    revision: 1,
    name: `price above ${threshold}`,
    table_name: table,
    match: row === undefined ? {} : { id: [String(row)] },
    group_by: null,
    condition: { field: 'price', op: 'gt', value: threshold },
    clear_condition: null,
    for_seconds: 0,
    keep_firing_for_seconds: 0,
    cooldown_seconds: 0,
    severity: 'info',
    enabled: true,
  };
}

import { setTimeout as sleep } from 'node:timers/promises';
import { createPool } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { order, tell } from './commits.ts';
import { zipf } from './zipf.ts';

export interface SqlLoad {
  readonly url: string;
  readonly connections: number;
  /** Statements with their parameters, the most frequent first. */
  readonly statements: readonly { readonly name: string; readonly text: string; readonly values: readonly unknown[] }[];
  readonly clients: number;
  /** How long a client rests before it asks again, on average; 0: not at all. */
  readonly restMs: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

export interface SqlFigures {
  /** Of each answer, in ms, after the warm-up. */
  readonly latencies: Float64Array;
}

const { url, connections, statements, clients, restMs, warmUpSeconds, seconds } = await order<SqlLoad>();
const pool = createPool(url, 'headwater bench', silentLogger(), connections);
const pick = zipf(statements.length);
const latencies: number[] = [];
const begun = performance.now();
const [from, until] = [begun + warmUpSeconds * 1_000, begun + (warmUpSeconds + seconds) * 1_000];
await Promise.all(Array.from({ length: clients }, client));
tell({ latencies: Float64Array.from(latencies) } satisfies SqlFigures);
await pool.end();

async function client(): Promise<void> {
  for (;;) {
    if (restMs > 0) await sleep(restMs * 2 * Math.random());
    const asked = performance.now();
    if (asked >= until) return;
    const { name, text, values } = statements[pick()]!;
    await pool.query({ name, text, values: [...values] });
    if (asked >= from) latencies.push(performance.now() - asked);
  }
}

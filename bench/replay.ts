import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { extname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { NewEvent } from '../pipeline/log/event-log.ts';
import { JetStreamLog } from '../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { orAborted, startProgram } from './lib/processes.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { grouped, median, range } from './lib/statistics.ts';
import { medianUsage, UsageWatch, type Usage } from './lib/usage.ts';
import type { LogCounterOrder } from './programs/log-counter.ts';

const stream = 'EVENTS';
const subject = 'ev';
const perBatch = 1_000;
const chains = 100;

interface Work {
  readonly title: string;
  readonly events: number;
  readonly args: readonly string[];
  /** Of a hundred events. */
  readonly percent: number;
}

interface Measurement extends Work {
  readonly countSeconds: number;
  readonly seconds: number;
  readonly usage: readonly Usage[];
}

/** The filters; each is applied by `headwater replay` to events that are all of one table but one in a hundred. */
function works(events: number): readonly Work[] {
  const of = (title: string, percent: number, ...args: readonly string[]): Work => ({ title, events, args, percent });
  return [
    of('where, a text', 1, '--tables', 'prices', '--where', 'chain = "chain 7"'),
    of('where, a number', 1, '--tables', 'prices', '--where', 'price < 1000.005'),
    of('key', 1, '--key', 'token 7'),
    of('table', 1, '--tables', 'orders'),
    of('nothing left out', 100),
  ];
}

/** How fast the log is read again through a filter. */
export const replayBench: Bench = {
  name: 'replay',
  about: 'the log from sequence 1 through a filter on 1 %, into a file; yardstick: an ordered consumer that only counts',
  async run(context) {
    const measurements: Measurement[] = [];
    for (const events of context.quick ? [10_000, 100_000] : [100_000, 1_000_000]) {
      await scoped(async (scope) => {
        await fillLog(context, events, scope);
        for (let run = 1; run <= context.runs; run++)
          for (const work of works(events)) {
            const measured = await measure(context, work, run);
            measurements.push(measured);
            const rate = (seconds: number): string => grouped(events / seconds);
            context.say(
              `${work.title}, ${grouped(events)} events, run ${run} of ${context.runs}: ${rate(measured.seconds)} events/s, counting ${rate(measured.countSeconds)}`,
            );
          }
      });
    }
    return report(measurements);
  },
};

/** As capture writes it, without the database: what is measured is the reading. */
async function fillLog({ servers, signal }: BenchContext, events: number, scope: Scope): Promise<void> {
  const settings = { stream, subject, replicas: 1, maxAgeMs: undefined, maxBytes: undefined };
  const log = await JetStreamLog.create(servers.connection, settings, silentLogger());
  scope.defer(async () => {
    log.close();
    await servers.jsm.streams.delete(stream);
  });
  for (let from = 1; from <= events; from += perBatch) {
    signal.throwIfAborted();
    await log.append(
      Array.from({ length: perBatch }, (_, i) => nth(from + i)),
      from - 1,
    );
  }
}

function nth(n: number): NewEvent {
  const id = `${n.toString(16).toUpperCase().padStart(16, '0')}.00000001`;
  const at = new Date(Date.UTC(2026, 10, 22) + n).toISOString().replace('Z', '000Z');
  if (n <= 2) {
    const table = n === 1 ? 'prices' : 'orders';
    const columns = [
      { name: 'token_id', type: 'text', key: true },
      { name: 'price', type: 'numeric(20,4)', key: false },
      { name: 'chain', type: 'text', key: false },
      { name: 'note', type: 'text', key: false },
    ];
    return {
      subject: `${subject}._schema.public.${table}`,
      data: Buffer.from(JSON.stringify({ v: 1, id, type: 'schema', relation: `public.${table}`, columns, at })),
    };
  }
  const table = n % 100 === 50 ? 'orders' : 'prices';
  const token = `token ${n % chains}`;
  const price = `${1_000 * (n % chains) + 999}.${String(n % 10_000).padStart(4, '0')}`;
  const after = { token_id: token, price, chain: `chain ${n % chains}`, note: 'a row like others, of some 200 bytes' };
  const event = {
    v: 1,
    id,
    type: 'row',
    op: 'update',
    table: `public.${table}`,
    key: { token_id: token },
    after,
    tx: { xid: n, idx: 0, last: true },
    at,
  };
  return { subject: `${subject}.public.${table}.update`, data: Buffer.from(JSON.stringify(event)) };
}

async function measure(context: BenchContext, work: Work, run: number): Promise<Measurement> {
  const { servers, signal } = context;
  const order: LogCounterOrder = { natsUrl: servers.nats.operator, stream, events: work.events };
  const counted = await scoped((scope) => startProgram('log-counter', order, scope).next<{ seconds: number }>(signal));
  const replayed = await scoped((scope) => replay(context, work, run, scope));
  return { ...work, countSeconds: counted.seconds, ...replayed };
}

/** `headwater replay` as a process of its own, timed by itself from its connection on. */
async function replay(
  { servers, signal, profile }: BenchContext,
  work: Work,
  run: number,
  scope: Scope,
): Promise<Pick<Measurement, 'seconds' | 'usage'>> {
  const file = join(servers.data, `${work.title.replaceAll(/\W/g, '-')}-${work.events}-${run}.ndjson`);
  const main = join(import.meta.dirname, `../cli/main${extname(import.meta.filename)}`);
  const profiling = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
  const args = [...process.execArgv, ...profiling, main, 'replay', '--from', '1', '--to-file', file, '--json', ...work.args];
  const env = { PATH: process.env['PATH'], NATS_URL: servers.nats.operator, HEADWATER_DATA: servers.data };
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const watch = new UsageWatch([{ process: 'headwater (replay)', pid: child.pid! }, ...servers.watched]);
  scope.defer(() => {
    watch.stop();
    child.kill('SIGKILL');
  });
  const said = Promise.all([text(child.stdout), text(child.stderr), once(child, 'close') as Promise<[number | null]>]);
  const [out, err, [code]] = await orAborted(said, signal);
  if (code !== 0) throw new Error(`headwater replay ended with ${String(code)}: ${err}`);
  const { events, seconds } = JSON.parse(out) as { events: number; seconds: number };
  const share = (events / work.events) * 100;
  if (Math.abs(share - work.percent) > work.percent * 0.05)
    throw new Error(`${work.title}: ${events} events of ${work.events} came through`);
  return { seconds, usage: watch.stop() };
}

function report(measurements: readonly Measurement[]): Report {
  const kinds = [...new Map(measurements.map((each) => [`${each.events} ${each.title}`, each])).values()];
  const of = (kind: Work): readonly Measurement[] =>
    measurements.filter(({ title, events }) => title === kind.title && events === kind.events);
  const rows = kinds.map((kind) => {
    const own = of(kind);
    const ratios = own.map(({ seconds, countSeconds }) => countSeconds / seconds);
    const rate = (seconds: (each: Measurement) => number): string => grouped(median(own.map((each) => kind.events / seconds(each))));
    return [
      grouped(kind.events),
      kind.title,
      `${kind.percent} %`,
      rate(({ seconds }) => seconds),
      rate(({ countSeconds }) => countSeconds),
      median(ratios).toFixed(2),
      range(ratios, 2),
    ];
  });
  const groups = kinds.map((kind) => ({
    title: `${grouped(kind.events)}, ${kind.title}`,
    usage: medianUsage(of(kind).map(({ usage }) => usage)),
  }));
  return {
    tables: [
      { title: 'The log read again', head: ['EVENTS', 'FILTER', 'PASS', 'EVENTS/s', 'COUNTING', 'RATIO', 'RANGE'], rows },
      usageTable('What it takes', groups),
    ],
    notes: [
      'Events of the log a second, whether they pass or not. `headwater replay --from 1 --to-file` is timed by itself, from its connection to the last byte on disk, with its checkpoints.',
      'Counting: the ordered consumer of the NATS client over the same stream, 5,000 messages a pull, a callback that counts. It is not filtered.',
      'By table the server leaves out the rest; by condition and key the replay itself looks at each event.',
    ],
    measurements,
  };
}

import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { captureFixture } from '../pipeline/capture/support/fixture.ts';
import { expectWellFormed, type StoredEvent } from '../pipeline/capture/support/stored-events.ts';
import { startCli } from '../cli/support/run-cli.ts';
import { stopTestServers } from '../support/servers.ts';

/** One transaction of a million rows passes through capture in flat memory: `npm run soak:transaction -- --rows 1000000`. */
const { values } = parseArgs({ options: { rows: { type: 'string', default: '1000000' }, limit: { type: 'string', default: '256' } } });
const rows = Number(values.rows);
const fixture = await captureFixture();
try {
  await fixture.query('CREATE TABLE large (id int PRIMARY KEY, v text)');
  const child = startCli(['run', 'capture'], {
    DATABASE_URL: fixture.databaseUrl,
    NATS_URL: fixture.natsUrls.capture,
    REDIS_URL: 'redis://127.0.0.1:1',
    HEADWATER_SLOT: fixture.slot,
    HEADWATER_ADMIN_PORT: '0',
  });
  child.stderr!.pipe(process.stderr);
  await fixture.until(async () => (await fixture.events().catch(() => [])).some((event) => event.type === 'tick'), 'capture to stream');
  const before = peakMegabytes(child.pid!);
  const begun = performance.now();
  await fixture.query(`INSERT INTO large SELECT i, repeat('x', 150) || i FROM generate_series(1, ${rows}) i`);
  const committed = performance.now();
  let held = 0;
  const log = await fixture.log();
  await fixture.until(async () => (held = (await log.bounds()).last) >= rows, 'the transaction', 600_000);
  const logged = performance.now();
  const peak = peakMegabytes(child.pid!);
  child.kill('SIGTERM');
  await once(child, 'exit');
  await check(rows, held);
  const report = {
    rows,
    commitSeconds: seconds(committed - begun),
    loggedSeconds: seconds(logged - committed),
    rowsPerSecond: Math.round((1_000 * rows) / (logged - committed)),
    peakMegabytesBefore: before,
    peakMegabytes: peak,
  };
  console.log(JSON.stringify(report));
  if (peak > Number(values.limit)) throw new Error(`${peak} MB of resident memory, more than ${values.limit}`);
} finally {
  await fixture.close();
  await stopTestServers();
}

/** The events, a part at a time, and their order across the parts. */
async function check(wanted: number, last: number): Promise<void> {
  const log = await fixture.log();
  let idx = -1;
  let lasts = 0;
  let open: StoredEvent | undefined;
  for await (const events of log.read(1)) {
    for (const { data, seq, subject } of events) {
      const event = { seq, subject, ...(JSON.parse(Buffer.from(data).toString('utf8')) as Omit<StoredEvent, 'seq' | 'subject'>) };
      if (open)
        expectWellFormed([
          { ...open, tx: undefined },
          { ...event, tx: undefined },
        ] as unknown as StoredEvent[]);
      if (event.table === 'public.large') {
        if (event.tx!.idx !== ++idx) throw new Error(`event ${event.tx!.idx} at ${seq} instead of ${idx}`);
        if (event.tx!.last) lasts++;
      } else if (idx >= 0 && idx < wanted - 1 && event.type !== 'schema') throw new Error(`event ${seq} stands within the transaction`);
      open = event;
    }
    if (events.at(-1)!.seq >= last) break;
  }
  if (idx !== wanted - 1 || lasts !== 1) throw new Error(`${idx + 1} events with ${lasts} ends instead of ${wanted} with one`);
}

/** Highest resident memory of a process so far. */
function peakMegabytes(pid: number): number {
  const [, kilobytes] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Math.round(Number(kilobytes) / 1024);
}

function seconds(ms: number): number {
  return Number((ms / 1_000).toFixed(1));
}

import { setTimeout as sleep } from 'node:timers/promises';
import { migrate } from '../deploy/migrate.ts';
import type { PgClient } from '../pipeline/clients/postgres.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { orAborted, startHeadwater, type Headwater } from './lib/processes.ts';
import { scoped } from './lib/scope.ts';
import { freshDatabase, sqlClient, type BenchServers } from './lib/servers.ts';
import { grouped, median, range } from './lib/statistics.ts';
import { medianUsage, peakMbOf, UsageWatch, type Usage } from './lib/usage.ts';

const stream = 'EVENTS';
const entities = 10_000;
const perTransaction = 100;
const pollMs = 20;

/** 0 is the yardstick: the same events, and nobody asks anything of them. */
const sizes = [0, 100, 10_000, 1_000_000] as const;

interface Measurement {
  readonly rules: number;
  readonly events: number;
  readonly firing: number;
  readonly seconds: number;
  /** From the first rule in the log to the last one stored; 0 without rules. */
  readonly foldSeconds: number;
  /** From the start of a second process until it has loaded what the first one stored. */
  readonly restartSeconds: number;
  readonly usage: readonly Usage[];
}

/** How fast the role folds the log, by the number of rules. */
export const alertsBench: Bench = {
  name: 'alerts',
  about: 'events/s through the alerts role, 1 % of which cross a threshold, by number of rules; yardstick: the same role without rules',
  async run(context) {
    const wanted = context.quick ? sizes.slice(0, 3) : sizes;
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      for (const rules of run % 2 === 1 ? wanted : wanted.toReversed()) {
        const measured = await measure(context, rules, context.quick ? 20_000 : 200_000);
        measurements.push(measured);
        context.say(`${grouped(rules)} rules, run ${run} of ${context.runs}: ${grouped(measured.events / measured.seconds)} events/s`);
      }
    }
    return report(wanted, measurements);
  },
};

/** Rules and events are in the log before the role starts, so that it is as fast as it can be. */
async function measure(context: BenchContext, rules: number, events: number): Promise<Measurement> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const url = await freshDatabase(servers, scope, signal);
    const client = await sqlClient(url, scope);
    await migrate(url, { demo: false, log: silentLogger() });
    await createQuotes(client);
    await createRules(client, rules, signal);
    const { begin, end } = await fillLog(context, url, client, events);
    const env = { DATABASE_URL: url, NATS_URL: servers.nats.operator, REDIS_URL: servers.redisUrl };
    const { foldSeconds, seconds, usage } = await scoped(async (inner) => {
      const headwater = startHeadwater(['alerts'], env, context, inner);
      const { at: started } = await headwater.logged(/^alerts: going on/, signal);
      const folded = await headwater.while(reached(client, begin, signal));
      const watch = new UsageWatch([{ process: 'headwater (alerts)', pid: headwater.pid }, ...servers.watched]);
      inner.defer(() => void watch.stop());
      const done = await headwater.while(reached(client, end, signal));
      const peakMb = peakMbOf(headwater.pid);
      const used = watch.stop().map((each) => (each.process.startsWith('headwater') ? { ...each, peakMb } : each));
      return { foldSeconds: (folded - started) / 1_000, seconds: (done - folded) / 1_000, usage: used };
    });
    const restartSeconds = await restart(context, env);
    const firing = await verify(client, rules, events);
    return { rules, events, firing, seconds, foldSeconds, restartSeconds, usage };
  });
}

async function createQuotes(client: PgClient): Promise<void> {
  await client.query(`
    CREATE TABLE public.quotes (id integer PRIMARY KEY, symbol text NOT NULL, price numeric(20, 8) NOT NULL, quoted_at timestamptz NOT NULL);
    CREATE PROCEDURE public.quote(total bigint) LANGUAGE plpgsql AS $$
    BEGIN
      FOR batch IN 0 .. total / ${perTransaction} - 1 LOOP
        -- All stay below every threshold, but for one in a hundred: that crosses one, and goes back the next time.
        UPDATE public.quotes q
        SET price = CASE WHEN i = (batch / ${entities / perTransaction}) % ${perTransaction} THEN 1000.5 ELSE (batch * 7919 + i * 104729) % 100000 / 101.0 END,
            quoted_at = clock_timestamp()
        FROM generate_series(0, ${perTransaction - 1}) i
        WHERE q.id = 1 + (batch * ${perTransaction} + i) % ${entities};
        COMMIT;
      END LOOP;
    END $$`);
  await client.query(`INSERT INTO public.quotes SELECT i, 'TOKEN' || i || '-USD', 100, now() FROM generate_series(1, ${entities}) i`);
}

/** Each entity has its rules: as many each as there are, or several entities share one. */
async function createRules(client: PgClient, rules: number, signal: AbortSignal): Promise<void> {
  if (rules === 0) return;
  const groups = Math.min(rules, entities);
  await orAborted(
    client.query(
      `INSERT INTO headwater.alert_rules (user_id, name, table_name, match, condition)
       SELECT 'user ' || n % 1000, 'rule ' || n, 'public.quotes', groups.match,
         json_build_object('field', 'price', 'op', 'gt', 'value', 1000 + 10 * (n / ${groups}))
       FROM generate_series(0, ${rules - 1}) n
       JOIN (SELECT id % ${groups} AS g, jsonb_build_object('id', jsonb_agg(id)) AS match FROM public.quotes GROUP BY 1) groups ON groups.g = n % ${groups}`,
    ),
    signal,
  );
}

/** Capture copies rules and rows, and logs the events. Returns the sequences in front of the first and of the last event. */
async function fillLog(context: BenchContext, url: string, client: PgClient, events: number): Promise<{ begin: number; end: number }> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const env = { DATABASE_URL: url, NATS_URL: servers.nats.capture, REDIS_URL: servers.redisUrl };
    const headwater = startHeadwater(['capture'], env, { ...context, profile: undefined }, scope);
    await headwater.logged(/^streaming/, signal);
    const begin = await marked(headwater, servers, client, 'begin', signal);
    await orAborted(client.query(`CALL public.quote(${events})`), signal);
    return { begin, end: await marked(headwater, servers, client, 'end', signal) };
  });
}

async function marked(headwater: Headwater, { jsm }: BenchServers, client: PgClient, name: string, signal: AbortSignal): Promise<number> {
  await client.query('SELECT pg_logical_emit_message(true, $1, $1)', [name]);
  const find = async (): Promise<number> => {
    for (;;) {
      const message = await jsm.streams.getMessage(stream, { last_by_subj: `ev._message.${name}` }).catch(() => null);
      if (message) return message.seq;
      await sleep(pollMs, undefined, { signal });
    }
  };
  return headwater.while(find());
}

/** When the stored offset was seen to have come to a sequence (`performance.now()`). */
async function reached(client: PgClient, seq: number, signal: AbortSignal): Promise<number> {
  for (;;) {
    const { rows } = await client.query<{ seq: string | null }>(`SELECT seq FROM headwater.processor_offsets WHERE processor = 'alerts'`);
    if (Number(rows[0]?.seq ?? 0) >= seq) return performance.now();
    await sleep(pollMs, undefined, { signal });
  }
}

async function restart(context: BenchContext, env: Readonly<Record<string, string>>): Promise<number> {
  return scoped(async (scope) => {
    const begun = performance.now();
    const headwater = startHeadwater(['alerts'], env, { ...context, profile: undefined }, scope);
    const { at } = await headwater.logged(/^alerts: loaded/, context.signal);
    return (at - begun) / 1_000;
  });
}

/** One rule fires for each event that crosses; without rules none. */
async function verify(client: PgClient, rules: number, events: number): Promise<number> {
  const { rows } = await client.query<{ fired: number; resolved: number; outbox: number }>(
    `SELECT count(*)::float8 AS fired, count(resolved_at)::float8 AS resolved, (SELECT count(*)::float8 FROM headwater.alert_outbox) AS outbox
     FROM headwater.alert_history`,
  );
  const { fired, resolved, outbox } = rows[0]!;
  const wanted = rules === 0 ? 0 : events / perTransaction;
  if (fired !== wanted || outbox !== fired + resolved)
    throw new Error(`the history is wrong: ${fired} alerts instead of ${wanted}, and ${outbox} transitions for ${fired + resolved}`);
  return fired;
}

function report(wanted: readonly number[], measurements: readonly Measurement[]): Report {
  const of = (rules: number): readonly Measurement[] => measurements.filter((each) => each.rules === rules);
  const rate = ({ events, seconds }: Measurement): number => events / seconds;
  const yardstick = of(0).map(rate);
  const rows = wanted.map((rules) => {
    const own = of(rules);
    const ratios = own.map((each, i) => rate(each) / yardstick[i]!);
    const middle = (value: (each: Measurement) => number): number => median(own.map(value));
    return [
      grouped(rules),
      grouped(middle((each) => each.firing)),
      grouped(middle(rate)),
      rules === 0 ? 'yardstick' : median(ratios).toFixed(2),
      rules === 0 ? '' : range(ratios, 2),
      rules === 0 ? '' : middle((each) => each.foldSeconds).toFixed(1),
      middle((each) => each.restartSeconds).toFixed(1),
    ];
  });
  const groups = wanted.map((rules) => ({ title: `${grouped(rules)} rules`, usage: medianUsage(of(rules).map(({ usage }) => usage)) }));
  const head = ['RULES', 'FIRED', 'EVENTS/s', 'RATIO', 'RANGE', 'RULES FOLDED s', 'RESTART s'];
  return {
    tables: [{ title: 'Events through the alerts role', head, rows }, usageTable('What it takes', groups)],
    notes: [
      `${grouped(measurements[0]!.events)} updates of ${grouped(entities)} entities are in the log when the role starts; one in ${perTransaction} crosses a threshold, and goes back`,
      'at its next event. Timed until the offset is stored behind the last of them, with history and outbox. Yardstick: the same without a rule.',
      'Rules folded: from the start until all rules have come from the log and are stored. Restart: from the start of a process until it has loaded them.',
    ],
    measurements,
  };
}

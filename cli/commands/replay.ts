import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import type { Checkpoint, CheckpointFile } from '../../pipeline/replay/checkpoint.ts';
import { CountTarget } from '../../pipeline/replay/count-target.ts';
import type { Filter } from '../../pipeline/replay/filter.ts';
import { resolveRange, trimmedMeanwhile, type Range } from '../../pipeline/replay/range.ts';
import { replay, type ReplayOutcome } from '../../pipeline/replay/replay.ts';
import { nothingSettled, type ReplayTarget } from '../../pipeline/replay/target.ts';
import { requireForeignSubject } from '../../pipeline/replay/subject-target.ts';
import { HeadwaterError, usage } from '../../pipeline/runtime/errors.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { count, duration, text } from '../../pipeline/runtime/setting-types.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withNats } from '../connections.ts';
import { listOf } from '../option-values.ts';
import { progressOn } from '../progress.ts';
import { count as grouped } from '../progress-text.ts';
import { filterOf } from '../replay/filters.ts';
import { ReplayMeter } from '../replay/report.ts';
import { askedFor, beginning, ending, faultsOf, moment, ops, rangeOf, shownUrl, type ReplayOptions } from '../replay/request.ts';
import { checkpointFile, claim, keptCheckpoint, requireNobodyElse, requireSameLog, thisProcess } from '../replay/resume.ts';
import { openTarget, requireFreeFile } from '../replay/targets.ts';
import { verb, type Verb } from '../verb.ts';
import { rebuildCommand } from './rebuild.ts';

/** `headwater replay` */
export function replayCommand(cli: Cli): Command {
  const command = verb(
    cli,
    'replay',
    'Read events of the log again, into a file, a NATS subject or an HTTP endpoint. Processors, their offsets and notifications are not touched.',
    [
      ['replay --from 1 --to-file log.ndjson.gz', 'all of the log, a JSON object a line'],
      ['replay --since 2h --tables prices --ops insert,update --to-subject replay.prices', 'to a NATS subject'],
      [`replay --from oldest --tables prices --where 'chain = "base"' --dry-run`, 'only counts'],
      ['replay --from 1 --to-url https://hooks.example.com/in --secret-file secret --rate 500', 'in signed batches'],
      ['replay --from 1 --to-file log.ndjson.gz --resume', 'goes on where it was interrupted'],
    ],
  );
  return withTargets(withRange(command))
    .option('--resume', 'go on exactly where the same replay was interrupted')
    .value('--checkpoint <file>', 'where to keep how far it has come (default: beside the file, else in the data directory)', text.parse)
    .option('--json', 'print what was done as JSON')
    .dataOption()
    .action((options: ReplayOptions) => run(cli, options));
}

function withRange(command: Verb): Verb {
  return command
    .value('--from <seq>', 'begin at this sequence number, or at the oldest event: oldest', beginning.parse)
    .value('--since <time>', 'begin at the first event committed at this time or later: 2026-11-22T12:00:00Z, or 2h ago: 2h', moment.parse)
    .value(
      '--to <seq|time>',
      'the last sequence number, or the time before which to end (default: the log’s end as it is now)',
      ending.parse,
    )
    .value('--tables <list>', 'only rows of these tables: <schema>.<table>, or a name in "public"', listOf(Boolean, 'names of tables'))
    .value('--ops <list>', 'only these operations: insert, update, delete, truncate, read', ops)
    .value('--key <key>', 'only the row with this primary key, several columns joined by ":" (may be repeated)', keys)
    .value(
      '--where <condition>',
      'only rows, new or old, that meet this condition: price > 100 AND chain IN ("base", "optimism")',
      text.parse,
    )
    .value('--subjects <list>', 'only these NATS subjects, with wildcards: ev.public.*.insert', listOf(Boolean, 'NATS subjects'))
    .option('--no-ticks', 'leave out the ticks of the clock');
}

function withTargets(command: Verb): Verb {
  return command
    .value('--to-file <file>', 'NDJSON, {"seq":…,"event":…} a line; compressed when it ends in .gz', text.parse)
    .value('--to-subject <subject>', 'a NATS subject; ending in .> each event keeps the rest of its own: replay.>', text.parse)
    .value('--to-url <url>', 'HTTP POST in batches, in order, retried', text.parse)
    .value('--to-processor <name>', 'a processor, from the oldest event on, beside its live state: rebuild <name> --no-flip', text.parse)
    .option('--dry-run', 'only count')
    .option('--overwrite', 'replace the file')
    .value('--rate <n>', 'at most so many events a second', count(1, 1e9).parse)
    .value('--batch <n>', 'events in a batch over HTTP (default: 500, or the rate)', count(1, 10_000).parse)
    .value('--secret-file <file>', 'sign batches over HTTP with the whsec_… in this file, one a line', text.parse)
    .value('--give-up <duration>', 'how long to try what is not taken (default: 15m)', duration.parse);
}

/** Keys can have commas in them. */
function keys(key: string, previous: readonly string[] = []): readonly string[] {
  if (key === '') throw new Error('must be a key');
  return [...previous, key];
}

async function run(cli: Cli, options: ReplayOptions): Promise<void> {
  const faults = faultsOf(options);
  if (faults.length > 0) throw usage('bad_arguments', faults.join('\n'), '`headwater replay --help` shows what it takes');
  if (options.toProcessor !== undefined && !options.dryRun) return toProcessor(cli, options.toProcessor, options);
  const given = configOf(cli, { data: options.data });
  if (options.toSubject !== undefined) requireForeignSubject(options.toSubject, [given.subject, 'dl']);
  requireFreeFile(options);
  const config = await locate(given, 'natsUrl');
  const log = createLogger(given.logLevel);
  await withNats(config, log, async (connection) => {
    const begun = performance.now();
    const eventLog = await JetStreamLog.open(connection, config, log);
    try {
      const what = askedFor({ ...options, ...(options.toFile === undefined ? {} : { toFile: resolve(options.toFile) }) }, options.batch);
      const file = options.dryRun ? undefined : checkpointFile(options, config.stream, what, config.data);
      if (file) await requireNobodyElse(file);
      const kept = options.resume && file ? await keptCheckpoint(file, options, config.stream, what) : undefined;
      if (kept) await requireSameLog(kept, eventLog);
      const range = kept?.range ?? (await resolveRange(eventLog, rangeOf(options), cli.signal));
      const say = (line: string): void => void cli.err.line(line);
      const filter = await filterOf(options, eventLog, config.subject, range, say);
      const about = {
        run: kept?.run ?? randomBytes(6).toString('base64url'),
        stream: config.stream,
        epoch: (await eventLog.bounds()).epoch,
        what,
        holder: await thisProcess(),
      };
      const begin = (): Promise<ReplayTarget> => openTarget({ options, connection, run: about.run, kept, say });
      const mine = firstCheckpoint(about, range, kept);
      const target = file ? await claim(file, { mine, kept }, begin, cli.signal) : await begin();
      try {
        await work(cli, options, { eventLog, range, filter, target, file, kept, about, begun });
      } finally {
        await target.close();
      }
    } catch (error) {
      throw trimmedMeanwhile(error);
    } finally {
      eventLog.close();
    }
  });
}

/** What `rebuild` does without a flip: it, too, is killed and gone on with as one likes. */
async function toProcessor(cli: Cli, name: string, { data, json }: ReplayOptions): Promise<void> {
  const more = [...(data === undefined ? [] : ['--data', data]), ...(json ? ['--json'] : [])];
  await rebuildCommand(cli).parseAsync([name, '--no-flip', ...more], { from: 'user' });
}

/** The checkpoint as it is before anything is done. */
function firstCheckpoint(about: Work['about'], { first, last }: Range, kept: Checkpoint | undefined): Checkpoint {
  const nothing = { version: 1, range: { first, last }, next: first, settled: nothingSettled } as const;
  return { ...(kept ?? nothing), ...about };
}

interface Work {
  readonly eventLog: JetStreamLog;
  readonly range: Range;
  readonly filter: Filter;
  readonly target: ReplayTarget;
  readonly file: CheckpointFile | undefined;
  readonly kept: Checkpoint | undefined;
  readonly about: Pick<Checkpoint, 'run' | 'stream' | 'epoch' | 'what' | 'holder'>;
  /** When the work began, ms of the monotonic clock. */
  readonly begun: number;
}

async function work(cli: Cli, options: ReplayOptions, { eventLog, range, filter, target, file, kept, about, begun }: Work): Promise<void> {
  const progress = progressOn(cli.err);
  const meter = new ReplayMeter(range, cli.err.terminal);
  try {
    const outcome = await replay({
      eventLog,
      filter,
      range: { first: range.first, last: range.last },
      next: kept?.next ?? range.first,
      before: kept?.settled ?? nothingSettled,
      undecidedBefore: kept?.undecided,
      target,
      rate: options.rate,
      signal: cli.signal,
      save: async ({ next, mark, settled, undecided }) => {
        await file?.write({
          version: 1,
          ...about,
          range: { first: range.first, last: range.last },
          next,
          ...(mark ? { mark } : {}),
          settled,
          undecided,
        });
      },
      onProgress: throttled((state) => progress.show(meter.text(state, performance.now()))),
    });
    progress.end();
    if (outcome.done) await file?.remove();
    await tell(cli, options, { outcome, range, seconds: (performance.now() - begun) / 1_000, target });
    if (!outcome.done) throw stopped(cli, outcome, file);
  } finally {
    progress.end();
  }
}

const showEveryMs = 200;

/** Nobody reads faster. */
function throttled<T>(show: (state: T) => void): (state: T) => void {
  let shownAt = -Infinity;
  return (state) => {
    const now = performance.now();
    if (now - shownAt < showEveryMs) return;
    shownAt = now;
    show(state);
  };
}

interface Told {
  readonly outcome: ReplayOutcome;
  readonly range: Range;
  readonly seconds: number;
  readonly target: ReplayTarget;
}

async function tell(cli: Cli, options: ReplayOptions, { outcome, range, seconds, target }: Told): Promise<void> {
  const { done, events, bytes, next, undecided } = outcome;
  const subjects = target instanceof CountTarget ? target.subjects : undefined;
  if (undecided > 0)
    await cli.err.line(
      `${grouped(undecided)} events are in it although they lack a value that --where asks for: the log has no more of them`,
    );
  if (options.json) {
    const counted = subjects && { subjects: Object.fromEntries(subjects) };
    const said = {
      done,
      events,
      bytes,
      from: range.first,
      to: range.last,
      next,
      undecided,
      seconds: Number(seconds.toFixed(3)),
      ...counted,
    };
    return cli.out.line(JSON.stringify(said));
  }
  for (const [subject, number] of [...(subjects ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)))
    await cli.out.line(`${grouped(number)}\t${subject}`);
  const where = options.dryRun ? '' : ` to ${options.toFile ?? options.toSubject ?? shownUrl(options.toUrl!)}`;
  const span = done ? `sequences ${range.first} to ${range.last}` : `sequences ${range.first} to ${next - 1}, of ${range.last}`;
  const what = `${grouped(events)} events (${grouped(bytes)} bytes) ${options.dryRun ? 'would be replayed' : `replayed${where}`}`;
  await cli.out.line(`${what}, from ${span}, in ${seconds.toFixed(1)} s`);
}

/** The signal's own reason ends the process with the signal's code; where it has none, it failed. */
function stopped(cli: Cli, { next }: ReplayOutcome, file: CheckpointFile | undefined): unknown {
  const hint = file ? `the same command with --resume goes on at sequence ${next}` : 'run it again';
  void cli.err.line(`stopped; ${hint}`);
  return cli.signal.reason ?? new HeadwaterError('stopped', 'the replay was stopped', { hint });
}

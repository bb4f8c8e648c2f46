import { randomBytes } from 'node:crypto';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import type { Checkpoint, CheckpointFile } from '../../pipeline/replay/checkpoint.ts';
import { CountTarget } from '../../pipeline/replay/count-target.ts';
import type { Filter } from '../../pipeline/replay/filter.ts';
import { resolveRange, trimmedMeanwhile, type Range } from '../../pipeline/replay/range.ts';
import { replay as replayRange, type ReplayOutcome } from '../../pipeline/replay/replay.ts';
import { nothingSettled, type ReplayTarget } from '../../pipeline/replay/target.ts';
import { requireForeignSubject } from '../../pipeline/replay/subject-target.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withNats } from '../connections.ts';
import { progressOn } from '../progress.ts';
import { count as grouped, plural } from '../progress-text.ts';
import { filterOf } from '../replay/filters.ts';
import { ReplayMeter } from '../replay/report.ts';
import { askedFor, rangeOf, shownUrl, type ReplayOptions } from '../replay/request.ts';
import { checkpointFile, claim, goesOnFrom, requireSameLog, thisProcess } from '../replay/resume.ts';
import { openTarget, requireFreeFile } from '../replay/targets.ts';

/** Reads events again, into a target. */
export async function replay(cli: Cli, options: ReplayOptions): Promise<void> {
  if (options.toProcessor !== undefined && !options.dryRun) return toProcessor(cli, options.toProcessor, options);
  const given = configOf(cli, { data: options.data });
  if (options.toSubject !== undefined) requireForeignSubject(options.toSubject, [given.subject, 'dl']);
  const file = options.dryRun ? undefined : checkpointFile(options, given.stream, given.data);
  const kept = file && (await goesOnFrom(file, options, given.stream));
  requireFreeFile(options);
  const config = await locate(given, 'natsUrl');
  const log = createLogger(given.logLevel);
  await withNats(config, log, async (connection) => {
    const begun = performance.now();
    const eventLog = await JetStreamLog.open(connection, config, log);
    try {
      if (kept) await requireSameLog(kept, eventLog);
      const range = kept?.range ?? (await resolveRange(eventLog, rangeOf(options), cli.signal));
      const say = (line: string): void => void cli.err.line(line);
      const filter = await filterOf(options, eventLog, config.subject, range, say);
      const about = {
        run: kept?.run ?? randomBytes(6).toString('base64url'),
        stream: config.stream,
        epoch: (await eventLog.bounds()).epoch,
        what: askedFor(options),
        holder: await thisProcess(),
      };
      const begin = (): Promise<ReplayTarget> => openTarget({ options, connection, run: about.run, kept, say });
      const mine = firstCheckpoint(about, range, kept);
      const target = file ? await claim(file, { mine, kept, options }, begin, cli.signal) : await begin();
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
  const { rebuild } = await import('./rebuild.ts');
  await rebuild(cli, name, { flip: false, backfill: true, ...(data !== undefined && { data }), ...(json && { json }) });
}

/** The checkpoint as it is before anything is done. */
function firstCheckpoint(about: Work['about'], { first, last }: Range, kept: Checkpoint | undefined): Checkpoint {
  const nothing = { range: { first, last }, next: first, settled: nothingSettled } as const;
  return { ...(kept ?? nothing), ...about, version: 2 };
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
    const outcome = await replayRange({
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
          version: 2,
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
      `${plural(undecided, 'event is in it although it lacks', 'events are in it although they lack')} a value that --where asks for: the log has no more of them`,
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
  const span = spanText(range, done ? undefined : next - 1);
  const what = `${plural(events, 'event')} (${plural(bytes, 'byte')}) ${options.dryRun ? 'would be replayed' : `replayed${where}`}`;
  await cli.out.line(`${what}, ${span}, in ${seconds.toFixed(1)} s`);
}

/** @param end where it was stopped */
function spanText({ first, last }: Range, end: number | undefined): string {
  if (last < first) return 'as no sequence of the log is in that range';
  return `from sequences ${first} to ${end === undefined ? last : `${end}, of ${last}`}`;
}

/** The signal's own reason ends the process with the signal's code; where it has none, it failed. */
function stopped(cli: Cli, { next }: ReplayOutcome, file: CheckpointFile | undefined): unknown {
  const hint = file ? `the same command with --resume goes on at sequence ${next}` : 'run it again';
  void cli.err.line(`stopped; ${hint}`);
  return cli.signal.reason ?? new HeadwaterError('stopped', 'the replay was stopped', { hint });
}

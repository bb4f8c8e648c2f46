import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { incarnation } from '../../deploy/local/processes.ts';
import { CheckpointFile, type AskedFor, type Checkpoint, type Holder } from '../../pipeline/replay/checkpoint.ts';
import type { EventLog } from '../../pipeline/log/event-log.ts';
import { idOf } from '../../pipeline/runner/event-head.ts';
import { refused, usage, type HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { askedFor, filtersAndTarget, shownUrl, type ReplayOptions } from './request.ts';

/** Where the checkpoint is: beside a file that is written, else in the data directory under a name made of the filters and the target. */
export function checkpointFile(options: ReplayOptions, stream: string, data: string): CheckpointFile {
  if (options.checkpoint !== undefined) return new CheckpointFile(resolve(options.checkpoint));
  if (options.toFile !== undefined) return new CheckpointFile(`${resolve(options.toFile)}.checkpoint`);
  const name = createHash('sha256')
    .update(`[${JSON.stringify(stream)},${filtersAndTarget(options)}]`)
    .digest('hex')
    .slice(0, 16);
  return new CheckpointFile(join(resolve(data), 'replay', `${name}.json`));
}

/** This process, as a checkpoint names it. */
export async function thisProcess(): Promise<Holder> {
  return { host: hostname(), pid: process.pid, incarnation: (await incarnation(process.pid)) ?? '' };
}

/**
 * What this replay goes on from; undefined when it begins.
 * @throws HeadwaterError `replay_running`, `replay_unfinished`, `old_checkpoint` (refused); `nothing_to_resume`, `other_replay` (usage)
 */
export async function goesOnFrom(file: CheckpointFile, options: ReplayOptions, stream: string): Promise<Checkpoint | undefined> {
  const found = await requireNobodyElse(file);
  if (options.resume) return requireSame(file, found, options, stream);
  requireNothingUnfinished(file, found, options);
  return undefined;
}

/** Two that write to one place would spoil it for each other. */
async function requireNobodyElse(file: CheckpointFile): Promise<Checkpoint | undefined> {
  const found = await file.read();
  const { host, pid, incarnation: life } = found?.holder ?? {};
  if (pid === undefined || host !== hostname() || pid === process.pid || (await incarnation(pid)) !== life) return found;
  throw refused('replay_running', `process ${pid} is at work on this replay`, 'let it end, or stop it first; --resume goes on then');
}

/** Who began anew beside what is half delivered could only guess later what the target has. */
function requireNothingUnfinished({ path }: CheckpointFile, found: Checkpoint | undefined, options: ReplayOptions): void {
  if (!found || options.overwrite) return;
  if (found.version === 1) throw ofEarlierVersion(path, found);
  const { first, last } = found.range;
  const differing = differences(found.what, askedFor(options));
  const same = differing.length === 0;
  const told = `a replay of sequences ${first} to ${last} was interrupted, and would go on at ${found.next} (${path})`;
  throw refused(
    'replay_unfinished',
    same ? told : `${told}; of its options, ${differing.join('; ')}`,
    `${same ? '--resume goes on with it' : 'with its own options, --resume goes on with it'}; --overwrite forgets it and begins anew`,
  );
}

function ofEarlierVersion(path: string, { range, next }: Checkpoint): HeadwaterError {
  return refused(
    'old_checkpoint',
    `an earlier version of Headwater left a replay of sequences ${range.first} to ${range.last} that would go on at ${next}, without what it was asked for: ${path}`,
    `go on with that version, or forget it with --overwrite: \`--from ${next}\` begins where it ended, as a replay of its own`,
  );
}

/**
 * Makes the checkpoint this process's own before anything is written: of those that are started at once, one goes on. When it cannot
 * begin, what was there is there again.
 * @param kept what this replay goes on from
 * @throws HeadwaterError `replay_running`, `replay_unfinished`, `old_checkpoint` (refused), and what `begin` throws
 */
export async function claim<T>(
  file: CheckpointFile,
  { mine, kept, options }: { readonly mine: Checkpoint; readonly kept: Checkpoint | undefined; readonly options: ReplayOptions },
  begin: () => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const before = await file.alone(async () => {
    const found = await requireNobodyElse(file);
    if (kept && JSON.stringify(found) !== JSON.stringify(kept))
      throw refused('replay_running', 'another process went on with this replay just now', 'see how far it came, then run it again');
    if (!kept) requireNothingUnfinished(file, found, options);
    await file.write(mine);
    return found;
  }, signal);
  try {
    return await begin();
  } catch (error) {
    await (before ? file.write(before) : file.remove());
    throw error;
  }
}

async function requireSame(
  file: CheckpointFile,
  found: Checkpoint | undefined,
  options: ReplayOptions,
  stream: string,
): Promise<Checkpoint> {
  const { path } = file;
  if (!found)
    throw usage(
      'nothing_to_resume',
      [`no replay was interrupted: there is no checkpoint ${path}`, ...(await likeIt(file, options, stream))].join('\n'),
      'leave --resume out to begin; it goes on only with the same options and directory, or with the same --checkpoint',
    );
  if (found.version === 1) throw ofEarlierVersion(path, found);
  const told = [...differences(found.what, askedFor(options))];
  if (found.stream !== stream) told.push(`the stream was ${found.stream}, and is ${stream}`);
  if (told.length > 0)
    throw usage(
      'other_replay',
      told.map((fault) => `the replay to go on with was another one: ${fault}`).join('\n'),
      'give what was given then; without --resume, --overwrite forgets it and begins anew',
    );
  return found;
}

/** What is left of replays to the same target with other filters: perhaps one of them is meant. */
async function likeIt({ path }: CheckpointFile, options: ReplayOptions, stream: string): Promise<readonly string[]> {
  if (options.checkpoint !== undefined || options.toFile !== undefined) return [];
  const is = askedFor(options);
  const told: string[] = [];
  for (const name of await readdir(dirname(path)).catch(() => [])) {
    if (!name.endsWith('.json')) continue;
    const other = await new CheckpointFile(join(dirname(path), name)).read().catch(() => undefined);
    if (other?.version !== 2 || other.stream !== stream) continue;
    if (['--to-url', '--to-subject'].some((target) => other.what[target] !== is[target])) continue;
    told.push(`one to the same target was: ${differences(other.what, is).join('; ')}`);
  }
  return told;
}

/**
 * Is it still the log that the checkpoint is of, and is what is left still there?
 * @throws HeadwaterError `epoch_changed`, `log_regressed`, `offset_expired` (refused)
 */
export async function requireSameLog(kept: Checkpoint, eventLog: EventLog): Promise<void> {
  const anew = 'begin anew, with --overwrite in the place of --resume';
  const { first, last, epoch } = await eventLog.bounds();
  if (last < kept.range.last)
    throw refused('log_regressed', `the log ends at ${last}, and reached ${kept.range.last} when this replay began`, anew);
  if (kept.next < first && kept.next <= kept.range.last)
    throw refused(
      'offset_expired',
      `the log no longer holds sequence ${kept.next}, with which this replay would go on: its oldest event is ${first}`,
      anew,
    );
  const seen = kept.mark && (await eventLog.get(kept.mark.seq));
  const same = seen ? idOf(seen) === kept.mark?.id : epoch === kept.epoch;
  if (!same)
    throw refused('epoch_changed', `this is another log than the one that the replay began in (epoch ${kept.epoch}, now ${epoch})`, anew);
}

/** What was given then and is not now, or otherwise; each a sentence. */
function differences(was: AskedFor, is: AskedFor): readonly string[] {
  return Object.keys({ ...was, ...is })
    .filter((name) => JSON.stringify(was[name]) !== JSON.stringify(is[name]))
    .map((name) => {
      const [then, now] = [shown(name, was[name]), shown(name, is[name])];
      return then === now ? `${name} was ${then} with something else behind it` : `${name} was ${then}, and is ${now}`;
    });
}

/** A URL may hold a secret. A comma parts the items of a list, unless one has a comma itself. */
function shown(name: string, value: AskedFor[string] | undefined): string {
  if (value === undefined) return 'not given';
  if (typeof value === 'string') return name === '--to-url' ? shownUrl(value) : value;
  return value.some((item) => item.includes(',')) ? JSON.stringify(value) : value.join(',');
}

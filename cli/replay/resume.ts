import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { incarnation } from '../../deploy/local/processes.ts';
import { CheckpointFile, type Checkpoint, type Holder } from '../../pipeline/replay/checkpoint.ts';
import type { EventLog } from '../../pipeline/log/event-log.ts';
import { idOf } from '../../pipeline/runner/event-head.ts';
import { refused, usage } from '../../pipeline/runtime/errors.ts';
import { shownUrl, type ReplayOptions } from './request.ts';

type AskedFor = Checkpoint['what'];

/** Where the checkpoint is: beside a file that is written, else in the data directory under a name made of what is asked for. */
export function checkpointFile(options: ReplayOptions, stream: string, what: AskedFor, data: string): CheckpointFile {
  if (options.checkpoint !== undefined) return new CheckpointFile(resolve(options.checkpoint));
  if (options.toFile !== undefined) return new CheckpointFile(`${resolve(options.toFile)}.checkpoint`);
  const name = createHash('sha256')
    .update(JSON.stringify([stream, what]))
    .digest('hex')
    .slice(0, 16);
  return new CheckpointFile(join(resolve(data), 'replay', `${name}.json`));
}

/** This process, as a checkpoint names it. */
export async function thisProcess(): Promise<Holder> {
  return { host: hostname(), pid: process.pid, incarnation: (await incarnation(process.pid)) ?? '' };
}

/**
 * Two that write to one place would spoil it for each other.
 * @returns the checkpoint that is there
 * @throws HeadwaterError `replay_running` (refused)
 */
export async function requireNobodyElse(file: CheckpointFile): Promise<Checkpoint | undefined> {
  const found = await file.read();
  const { host, pid, incarnation: life } = found?.holder ?? {};
  if (pid === undefined || host !== hostname() || pid === process.pid || (await incarnation(pid)) !== life) return found;
  throw refused('replay_running', `process ${pid} is at work on this replay`, 'let it end, or stop it first; --resume goes on then');
}

/**
 * Makes the checkpoint this process's own before anything is written: of those that are started at once, one goes on. When it cannot
 * begin, what was there is there again.
 * @param kept what this replay goes on from
 * @throws HeadwaterError `replay_running` (refused), and what `begin` throws
 */
export async function claim<T>(
  file: CheckpointFile,
  { mine, kept }: { readonly mine: Checkpoint; readonly kept: Checkpoint | undefined },
  begin: () => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const before = await file.alone(async () => {
    const found = await requireNobodyElse(file);
    if (kept && JSON.stringify(found) !== JSON.stringify(kept))
      throw refused('replay_running', 'another process went on with this replay just now', 'see how far it came, then run it again');
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

/**
 * The checkpoint to go on from.
 * @throws HeadwaterError `nothing_to_resume`, `other_replay` (usage)
 */
export async function keptCheckpoint(file: CheckpointFile, options: ReplayOptions, stream: string, what: AskedFor): Promise<Checkpoint> {
  const kept = await file.read();
  if (!kept)
    throw usage(
      'nothing_to_resume',
      `no replay was interrupted: there is no checkpoint ${file.path}`,
      'leave --resume out to begin; it goes on only with the same target, filters and directory, or with the same --checkpoint',
    );
  const faults = Object.keys({ ...kept.what, ...what }).filter((name) => kept.what[name] !== what[name]);
  const told = faults.map((name) => changed(name, shown(name, kept.what[name]), shown(name, what[name])));
  if (kept.stream !== stream) told.push(`the stream was ${kept.stream}, and is ${stream}`);
  if (typeof options.from === 'number' && options.from !== kept.range.first)
    told.push(`--from was ${kept.range.first}, and is ${options.from}`);
  if (options.to && 'seq' in options.to && options.to.seq !== kept.range.last)
    told.push(`--to was ${kept.range.last}, and is ${options.to.seq}`);
  if (told.length > 0)
    throw usage(
      'other_replay',
      told.map((fault) => `the replay to go on with was another one: ${fault}`).join('\n'),
      'give what was given then, or leave --resume out to begin anew',
    );
  return kept;
}

/**
 * Is it still the log that the checkpoint is of, and is what is left still there?
 * @throws HeadwaterError `epoch_changed`, `log_regressed`, `offset_expired` (refused)
 */
export async function requireSameLog(kept: Checkpoint, eventLog: EventLog): Promise<void> {
  const anew = 'begin anew, without --resume';
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

function changed(name: string, was: string, is: string): string {
  return was === is ? `${name} was ${was} with something else behind it` : `${name} was ${was}, and is ${is}`;
}

/** A URL may hold a secret. */
function shown(name: string, value: string | undefined): string {
  if (value === undefined) return 'not given';
  return name === '--to-url' ? shownUrl(value) : value;
}

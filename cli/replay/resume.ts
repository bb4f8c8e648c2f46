import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { incarnation } from '../../deploy/local/processes.ts';
import { CheckpointFile, type Checkpoint, type Holder } from '../../pipeline/replay/checkpoint.ts';
import type { EventLog } from '../../pipeline/log/event-log.ts';
import { idOf } from '../../pipeline/runner/event-head.ts';
import { refused, usage } from '../../pipeline/runtime/errors.ts';
import type { ReplayOptions } from './request.ts';

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
 * @throws HeadwaterError `replay_running` (refused)
 */
export async function requireNobodyElse(file: CheckpointFile): Promise<void> {
  const { host, pid, incarnation: life } = (await file.read())?.holder ?? {};
  if (pid === undefined || host !== hostname() || pid === process.pid || (await incarnation(pid)) !== life) return;
  throw refused('replay_running', `process ${pid} is at work on this replay`, 'let it end, or stop it first; --resume goes on then');
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
  const told = faults.map((name) => `${name} was ${kept.what[name] ?? 'not given'}, and is ${what[name] ?? 'not given'}`);
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

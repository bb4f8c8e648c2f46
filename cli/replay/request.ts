import type { RangeRequest } from '../../pipeline/replay/range.ts';
import { resolve } from 'node:path';
import type { AskedFor } from '../../pipeline/replay/checkpoint.ts';
import { rowOps, type RowOp } from '../../pipeline/replay/row-ops.ts';
import { duration, type SettingType } from '../../pipeline/runtime/setting-types.ts';
import { parseMoment } from '../../schemas/condition/instant.ts';
import { sequence } from '../option-values.ts';
import { placeFaults } from './places.ts';

/** The options of `headwater replay`. */
export interface ReplayOptions {
  readonly from?: 'oldest' | number;
  readonly since?: GivenTime;
  readonly to?: End;
  readonly subjects?: readonly string[];
  readonly tables?: readonly string[];
  readonly ops?: readonly RowOp[];
  readonly key?: readonly string[];
  readonly where?: string;
  /** False: without the ticks of the clock. */
  readonly ticks: boolean;
  readonly toSubject?: string;
  readonly toFile?: string;
  readonly toUrl?: string;
  readonly toProcessor?: string;
  readonly dryRun?: boolean;
  readonly rate?: number;
  readonly batch?: number;
  readonly secretFile?: string;
  readonly giveUp?: number;
  readonly resume?: boolean;
  readonly overwrite?: boolean;
  readonly checkpoint?: string;
  readonly json?: boolean;
  readonly data?: string;
}

/** A moment in microseconds since 1970, and the text that told it: `2h` is another moment each time it is read. */
export interface GivenTime {
  readonly time: number;
  readonly text: string;
}

type End = { readonly seq: number } | GivenTime;

const timeForm = 'a time like 2026-11-22T12:00:00Z, or how long ago, like 2h';

/** A moment in microseconds since 1970, or how long ago it was. */
export const moment: SettingType<number> = {
  label: 'time',
  parse: (text) => {
    const instant = parseMoment(text)?.instant;
    if (typeof instant === 'number' && Number.isFinite(instant)) return instant;
    try {
      // Throws where it is longer ago than a date can tell.
      return Date.parse(new Date(Date.now() - duration.parse(text)).toISOString()) * 1_000;
    } catch {
      throw new Error(`must be ${timeForm}`);
    }
  },
};

/** A moment, with its text. */
export const givenTime: SettingType<GivenTime> = {
  label: moment.label,
  parse: (text) => ({ time: moment.parse(text), text }),
};

/** Where to begin: a sequence, or what is oldest. */
export const beginning: SettingType<'oldest' | number> = {
  label: 'sequence, or oldest',
  parse: (text) => {
    if (text === 'oldest') return text;
    try {
      return sequence.parse(text);
    } catch {
      throw new Error('must be a sequence number, from 1, or oldest');
    }
  },
};

/** Where to end. */
export const ending: SettingType<End> = {
  label: 'sequence or time',
  parse: (text) => {
    if (/^\d+$/.test(text)) return { seq: sequence.parse(text) };
    try {
      return givenTime.parse(text);
    } catch {
      throw new Error(`must be a sequence number, from 1, or ${timeForm}`);
    }
  },
};

/** Operations, separated by commas. */
export function ops(text: string, previous: readonly RowOp[] = []): readonly RowOp[] {
  const wanted = text.split(',').map((item) => item.trim());
  const known = wanted.filter((item): item is RowOp => (rowOps as readonly string[]).includes(item));
  if (known.length < wanted.length) throw new Error(`must be of ${rowOps.join(', ')}`);
  return [...previous, ...known];
}

/** What is wrong with the options together; each a sentence. */
export function faultsOf(options: ReplayOptions): readonly string[] {
  const { from, since, subjects, tables, ops: operations, where, resume, overwrite, dryRun } = options;
  const faults: string[] = [];
  const targets = [options.toSubject, options.toFile, options.toUrl, options.toProcessor].filter((target) => target !== undefined);
  if (from === undefined && since === undefined) faults.push('say where to begin: --from <sequence>, --from oldest or --since <time>');
  if (from !== undefined && since !== undefined) faults.push('give --from or --since, not both');
  if (targets.length === 0 && !dryRun)
    faults.push('say where to: --to-subject, --to-file, --to-url or --to-processor; or --dry-run to count');
  if (targets.length > 1) faults.push('give one target: --to-subject, --to-file, --to-url or --to-processor');
  // Told without the URL, which may hold a secret.
  if (options.toUrl !== undefined && !isWebUrl(options.toUrl)) faults.push('--to-url must be an http:// or https:// URL');
  if (subjects && (tables ?? operations)) faults.push('give --subjects, or --tables and --ops, not both');
  if (where !== undefined && !tables) faults.push('--where needs --tables: the columns it names belong to them');
  if (resume && overwrite) faults.push('--resume goes on with what was interrupted, --overwrite forgets it: give one of them');
  if (resume && dryRun) faults.push('--dry-run leaves nothing to go on with: leave --resume out');
  if (overwrite && targets.length === 0) faults.push('--overwrite is for a target');
  if (options.toProcessor !== undefined) faults.push(...processorFaults(options));
  faults.push(...placeFaults(options));
  if (options.toUrl === undefined)
    for (const name of ['batch', 'secretFile'] as const)
      if (options[name] !== undefined) faults.push(`--${name === 'batch' ? 'batch' : 'secret-file'} is for --to-url`);
  return faults;
}

function isWebUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol);
}

/** A URL as it may be told to anybody: without what it may hold of secrets. */
export function shownUrl(text: string): string {
  if (!URL.canParse(text)) return 'what is no URL';
  const { origin, pathname } = new URL(text);
  return `${origin}${pathname}`;
}

/** A state that lacks events is of no use to anybody: it could be flipped by mistake. */
function processorFaults(options: ReplayOptions): readonly string[] {
  const given = ['since', 'to', 'subjects', 'tables', 'ops', 'key', 'where', 'rate', 'checkpoint', 'overwrite'] as const;
  const extra = given.filter((name) => options[name] !== undefined).map((name) => `--${name}`);
  const faults = extra.length === 0 ? [] : [`--to-processor takes the whole log: leave out ${extra.join(', ')}`];
  return typeof options.from === 'number' && options.from > 1
    ? [...faults, '--to-processor begins at the oldest event: --from oldest']
    : faults;
}

/** What decides which events go where, as it was given: a replay that goes on must have been asked for the same. */
export function askedFor(options: ReplayOptions): AskedFor {
  const { from, since, to } = options;
  const range = {
    '--from': from,
    '--since': since?.text,
    '--to': to && ('seq' in to ? to.seq : to.text),
  };
  const given = Object.entries({ ...range, ...partsOf(options) }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given.map(([name, value]) => [name, Array.isArray(value) ? (value as readonly string[]) : String(value)]));
}

/**
 * Names the filters and the target in one text, but not the range: of two ranges for one target, the second one finds what is left of the
 * first.
 */
export function filtersAndTarget(options: ReplayOptions): string {
  const given = Object.entries(partsOf(options)).filter(([, value]) => value !== undefined);
  return JSON.stringify(Object.fromEntries(given.map(([name, value]) => [name, String(value)])));
}

function partsOf(options: ReplayOptions): Readonly<Record<string, unknown>> {
  const { subjects, tables, ops: operations, key, where, ticks, toSubject, toFile, toUrl, toProcessor, batch } = options;
  return {
    '--subjects': subjects,
    '--tables': tables,
    '--ops': operations,
    '--key': key,
    '--where': where,
    '--no-ticks': ticks ? undefined : true,
    '--to-subject': toSubject,
    '--to-file': toFile === undefined ? undefined : resolve(toFile),
    '--to-url': toUrl,
    '--to-processor': toProcessor,
    '--batch': batch,
  };
}

/** What is asked for of the log. */
export function rangeOf({ from, since, to }: ReplayOptions): RangeRequest {
  const begin = from === undefined ? { since: since!.time } : from === 'oldest' ? from : { seq: from };
  return { from: begin, ...(to === undefined ? {} : { to: 'seq' in to ? to : { time: to.time } }) };
}

import type { RedriveOutcome } from '../../pipeline/runner/dead-letters.ts';
import type { DeadLetterDesk, MadeRequest, WantedLetter } from '../../pipeline/runner/redrive/desk.ts';
import type { RedriveRecord } from '../../pipeline/runner/redrive/requests.ts';
import type { Seq } from '../../pipeline/log/event-log.ts';
import { Speed } from '../../pipeline/runtime/speed.ts';
import { plain } from '../event-line.ts';
import type { Progress } from '../progress.ts';
import { count as grouped, plural, shareText, time } from '../progress-text.ts';
import { idOf, type LetterSelection } from './selection.ts';

/** Requests that are to be waited for. */
export interface Asked {
  readonly requests: readonly MadeRequest[];
  /** Places of the letters that were meant: a request from before may be for others, too. */
  readonly letters: ReadonlySet<Seq>;
  /** How many of them had been asked for before. */
  readonly already: number;
}

/** What became of letters that were to be redriven. */
export interface RedriveSummary {
  /** How many were asked for now. */
  readonly asked: number;
  /** How many more had been asked for before, and had not been done. */
  readonly already: number;
  /** Nobody has answered for them yet: they are done as soon as their processor works. */
  waiting: number;
  readonly outcomes: Record<RedriveOutcome, number>;
  /** Those that were not simply applied, with why; some of them, where there are many. */
  readonly notes: { readonly id: string; readonly outcome: RedriveOutcome; readonly reason: string | undefined }[];
}

const partLetters = 500;
const partBytes = 1024 ** 2;
const mostNotes = 1_000;

/** Asks for letters to be redriven, while they are found. What has been asked for already is not asked for again. */
export async function askFor(
  desk: DeadLetterDesk,
  { processor, matches }: LetterSelection,
  progress: Progress,
  signal: AbortSignal,
): Promise<Asked> {
  const before = await desk.asked(signal);
  const requests = new Map<string, MadeRequest>();
  const letters = new Set<Seq>();
  let already = 0;
  const waiting = new Map<string, { letters: WantedLetter[]; bytes: number }>();
  const send = async (name: string): Promise<void> => {
    const part = waiting.get(name);
    waiting.delete(name);
    for (const request of await desk.request(name, part?.letters ?? [])) {
      requests.set(request.id, request);
      for (const place of request.letters) letters.add(place);
      progress.show(plural(letters.size, 'letter is to be redriven', 'letters are to be redriven'));
    }
  };
  for await (const letter of desk.list(processor, signal)) {
    if (!matches(letter)) continue;
    const { place } = letter;
    const request = before.get(place);
    if (request) {
      requests.set(request.id, request);
      letters.add(place);
      already++;
      continue;
    }
    const part = waiting.get(letter.processor) ?? { letters: [], bytes: 0 };
    waiting.set(letter.processor, part);
    const bytes = letter.event?.length ?? partBytes;
    part.letters.push({ place, bytes });
    part.bytes += bytes;
    if (part.letters.length >= partLetters || part.bytes >= partBytes) await send(letter.processor);
  }
  for (const name of [...waiting.keys()]) await send(name);
  return { requests: [...requests.values()], letters, already };
}

/** Waits until the processors have answered, or have said nothing for so long. */
export async function awaitAll(
  desk: DeadLetterDesk,
  { requests, letters, already }: Asked,
  waitMs: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<RedriveSummary> {
  const processors = new Map(requests.map(({ id, processor }) => [id, processor]));
  const summary: RedriveSummary = {
    asked: letters.size - already,
    already,
    waiting: letters.size,
    outcomes: { applied: 0, superseded: 0, unneeded: 0, failed: 0, gone: 0 },
    notes: [],
  };
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), waitMs);
  const speed = new Speed();
  try {
    for await (const { id, results } of desk.results(requests, AbortSignal.any([signal, silent.signal]))) {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), waitMs);
      const meant = results.filter(({ place }) => letters.has(place));
      count(summary, meant, processors.get(id)!);
      progress.show(progressText(summary, speed));
    }
  } finally {
    clearTimeout(timer);
  }
  signal.throwIfAborted();
  return summary;
}

function count(summary: RedriveSummary, results: RedriveRecord['results'], processor: string): void {
  summary.waiting -= results.length;
  for (const { outcome, seq, place, reason } of results) {
    summary.outcomes[outcome]++;
    if (outcome === 'applied' || summary.notes.length >= mostNotes) continue;
    summary.notes.push({ id: seq === undefined ? `${processor} (letter ${place})` : idOf({ processor, seq }), outcome, reason });
  }
}

function progressText({ asked, already, waiting }: RedriveSummary, speed: Speed): string {
  const all = asked + already;
  const rate = speed.at(all - waiting);
  const parts = [
    `${grouped(all - waiting)} of ${plural(all, 'letter')} (${shareText((all - waiting) / all, false)})`,
    ...(rate === undefined ? [] : [`${grouped(rate)}/s`]),
    ...(rate ? [`${time(waiting / rate)} left`] : []),
  ];
  return parts.join(', ');
}

const meaning: Readonly<Record<RedriveOutcome, string>> = {
  applied: 'applied',
  superseded: 'superseded by newer events, which stand',
  unneeded: 'not needed: the state has them, or will come to them',
  failed: 'failed again, and kept',
  gone: 'gone meanwhile',
};

/** What there is to say, the outcome first. */
export function summaryLines({ asked, already, waiting, outcomes, notes }: RedriveSummary, most = 20): readonly string[] {
  const all = asked + already;
  if (all === 0) return ['There is nothing to redrive.'];
  const parts = Object.entries(outcomes)
    .filter(([, many]) => many > 0)
    .map(([outcome, many]) => `${many} ${meaning[outcome as RedriveOutcome]}`);
  if (waiting > 0) parts.push(`${waiting} waiting`);
  const told = notes.filter(({ reason }) => reason !== undefined).slice(0, most);
  const earlier = already === 0 ? '' : ` (${already === all ? '' : `${already} of them `}asked for already)`;
  return [
    `${plural(all, 'letter')}${earlier}: ${parts.join('; ')}`,
    ...told.map(({ id, outcome, reason }) => `  ${id} ${outcome}: ${plain(reason)}`),
  ];
}

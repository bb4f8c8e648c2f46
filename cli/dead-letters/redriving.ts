import type { RedriveOutcome } from '../../pipeline/runner/dead-letters.ts';
import type { DeadLetterDesk, MadeRequest, WantedLetter } from '../../pipeline/runner/redrive-desk.ts';
import type { RedriveRecord } from '../../pipeline/runner/redrive-requests.ts';
import { plain } from '../event-line.ts';
import type { Progress } from '../progress.ts';
import { idOf, type LetterSelection } from './selection.ts';

/** What became of letters that were to be redriven. */
export interface RedriveSummary {
  /** How many were asked for. */
  asked: number;
  /** Nobody has answered for them yet: they are done as soon as their processor works. */
  waiting: number;
  readonly outcomes: Record<RedriveOutcome, number>;
  /** Those that were not simply applied, with why; some of them, where there are many. */
  readonly notes: { readonly id: string; readonly outcome: RedriveOutcome; readonly reason: string | undefined }[];
}

const partLetters = 500;
const partBytes = 1024 ** 2;
const mostNotes = 1_000;

/** Asks for letters to be redriven, while they are found. */
export async function askFor(
  desk: DeadLetterDesk,
  { processor, matches }: LetterSelection,
  progress: Progress,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, MadeRequest & { readonly processor: string }>> {
  const made = new Map<string, MadeRequest & { readonly processor: string }>();
  const waiting = new Map<string, { letters: WantedLetter[]; bytes: number }>();
  let asked = 0;
  const send = async (name: string): Promise<void> => {
    const part = waiting.get(name);
    waiting.delete(name);
    for (const request of await desk.request(name, part?.letters ?? [])) {
      made.set(request.id, { ...request, processor: name });
      asked += request.letters;
      progress.show(`${asked} letters are to be redriven`);
    }
  };
  for await (const letter of desk.list(processor, signal)) {
    if (letter.asked || !matches(letter)) continue;
    const part = waiting.get(letter.processor) ?? { letters: [], bytes: 0 };
    waiting.set(letter.processor, part);
    const bytes = letter.event?.length ?? partBytes;
    part.letters.push({ place: letter.place, bytes });
    part.bytes += bytes;
    if (part.letters.length >= partLetters || part.bytes >= partBytes) await send(letter.processor);
  }
  for (const name of [...waiting.keys()]) await send(name);
  return made;
}

/** Waits until the processors have answered, or have said nothing for so long. */
export async function awaitAll(
  desk: DeadLetterDesk,
  made: ReadonlyMap<string, MadeRequest & { readonly processor: string }>,
  waitMs: number,
  progress: Progress,
  signal: AbortSignal,
): Promise<RedriveSummary> {
  const summary: RedriveSummary = {
    asked: 0,
    waiting: 0,
    outcomes: { applied: 0, superseded: 0, unneeded: 0, failed: 0, gone: 0 },
    notes: [],
  };
  for (const { letters } of made.values()) summary.asked += letters;
  summary.waiting = summary.asked;
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), waitMs);
  const began = performance.now();
  try {
    for await (const record of desk.results([...made.values()], AbortSignal.any([signal, silent.signal]))) {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), waitMs);
      count(summary, record, made.get(record.id)!.processor);
      progress.show(progressText(summary, performance.now() - began));
    }
  } finally {
    clearTimeout(timer);
  }
  signal.throwIfAborted();
  return summary;
}

function count(summary: RedriveSummary, { results }: RedriveRecord, processor: string): void {
  summary.waiting -= results.length;
  for (const { outcome, seq, place, reason } of results) {
    summary.outcomes[outcome]++;
    if (outcome === 'applied' || summary.notes.length >= mostNotes) continue;
    summary.notes.push({ id: seq === undefined ? `${processor} (letter ${place})` : idOf({ processor, seq }), outcome, reason });
  }
}

function progressText({ asked, waiting }: RedriveSummary, ms: number): string {
  const done = asked - waiting;
  const rate = done / Math.max(0.001, ms / 1_000);
  return `${done} of ${asked} letters (${Math.floor((100 * done) / asked)} %), ${Math.round(rate)}/s, ${Math.ceil(waiting / Math.max(rate, 0.001))} s left`;
}

const meaning: Readonly<Record<RedriveOutcome, string>> = {
  applied: 'applied',
  superseded: 'superseded by newer events, which stand',
  unneeded: 'not needed: the state has them, or will come to them',
  failed: 'failed again, and kept',
  gone: 'gone meanwhile',
};

/** What there is to say, the outcome first. */
export function summaryLines({ asked, waiting, outcomes, notes }: RedriveSummary, most = 20): readonly string[] {
  const parts = Object.entries(outcomes)
    .filter(([, many]) => many > 0)
    .map(([outcome, many]) => `${many} ${meaning[outcome as RedriveOutcome]}`);
  if (waiting > 0) parts.push(`${waiting} waiting`);
  const told = notes.filter(({ reason }) => reason !== undefined).slice(0, most);
  return [
    `${asked} letter${asked === 1 ? '' : 's'}: ${parts.join('; ')}`,
    ...told.map(({ id, outcome, reason }) => `  ${id} ${outcome}: ${plain(reason)}`),
  ];
}

import { userInfo } from 'node:os';
import type { DeadLetterDesk, ListedLetter } from '../../pipeline/runner/redrive/desk.ts';
import { type HeadwaterError, usage } from '../../pipeline/runtime/errors.ts';
import { dropDead, listDead, redrive as sendAgain } from '../../processors/notify/redrive.ts';
import type { Cli } from '../cli.ts';
import { confirm } from '../confirm.ts';
import { askFor, awaitAll, summaryLines } from '../dead-letters/redriving.ts';
import {
  changeOf,
  idOf,
  notify,
  selectionOf,
  type LetterSelection,
  type Selection,
  type SelectionOptions,
} from '../dead-letters/selection.ts';
import { nothingText } from '../dead-letters/nothing.ts';
import { onDatabase, onDesk } from '../dead-letters/sources.ts';
import { letterDetail, letterText, notificationJson, notificationText } from '../dead-letters/text.ts';
import { Ended } from '../failure.ts';
import { progressOn } from '../progress.ts';
import { plural } from '../progress-text.ts';

interface Common extends SelectionOptions {
  readonly data?: string;
  readonly json?: boolean;
}

interface RedriveOptions extends Common {
  readonly wait: number | false;
}

interface DropOptions extends Common {
  readonly reason?: string;
  readonly yes?: boolean;
}

const defaultWaitMs = 60_000;

/** Shows one letter. */
export async function show(cli: Cli, id: string, options: Common): Promise<void> {
  const { letters, notifications } = selectionOf([id], {});
  if (notifications) {
    const [found] = await onDatabase(cli, options, (pool) => listDead(pool, notifications, 1));
    if (!found) throw unknown([id]);
    return cli.out.line(options.json ? notificationJson(found) : notificationText(found, cli.out));
  }
  const found = await onDesk(cli, options, async (desk) => {
    // The newest: while one that failed again is put back, or when it was made twice in more than a week, there are two.
    let last: ListedLetter | undefined;
    for await (const letter of desk.list(letters!.processor, cli.signal)) if (letters!.matches(letter)) last = letter;
    if (last) return last;
    for await (const letter of desk.dropped(letters!.processor, cli.signal)) if (letters!.matches(letter)) return letter;
    return undefined;
  });
  if (!found) throw unknown([id]);
  await cli.out.line(options.json ? letterDetail(found) : letterText(found, cli.out));
}

/** Has processors apply letters, and notifications sent, again. */
export async function redrive(cli: Cli, ids: readonly string[], options: RedriveOptions): Promise<void> {
  const selection = changeOf(ids, options);
  const waitMs = options.wait === false ? 0 : typeof options.wait === 'number' ? options.wait : defaultWaitMs;
  const { letters, notifications } = selection;
  await requireAll(cli, options, selection);
  let failed = false;
  if (letters) failed = await redriveLetters(cli, options, letters, waitMs);
  if (notifications) {
    const sent = await onDatabase(cli, options, (pool) => sendAgain(pool, notifications));
    await cli.out.line(
      options.json ? JSON.stringify({ notifications: sent }) : `${plural(sent, 'notification is', 'notifications are')} sent again.`,
    );
  }
  if (failed) throw new Ended(1);
}

/** True when some have failed, or have not been answered for. */
async function redriveLetters(cli: Cli, options: RedriveOptions, letters: LetterSelection, waitMs: number): Promise<boolean> {
  const progress = progressOn(cli.err);
  try {
    return await onDesk(cli, options, async (desk) => {
      const asked = await askFor(desk, letters, progress, cli.signal);
      const summary = await awaitAll(desk, asked, waitMs, progress, cli.signal);
      progress.end();
      if (options.json) await cli.out.line(JSON.stringify(summary));
      else for (const line of summaryLines(summary)) await cli.out.line(line);
      if (asked.letters.size === 0) await sayNothing(cli, options, desk);
      if (summary.waiting > 0) {
        const names = [...new Set(asked.requests.map(({ processor }) => processor))].join(', ');
        await cli.err.line(`What is waiting is done as soon as its processor works (${names}): it need not be asked for again.`);
      }
      return summary.outcomes.failed > 0 || (summary.waiting > 0 && options.wait !== false);
    });
  } finally {
    progress.end();
  }
}

/** Gives letters up. */
export async function drop(cli: Cli, ids: readonly string[], options: DropOptions): Promise<void> {
  const selection = changeOf(ids, options);
  const { reason } = options;
  if (reason === undefined)
    throw usage('bad_arguments', '--reason is missing: say why they are given up', 'it is kept, and `dlq list --dropped` shows it');
  const { letters, notifications } = selection;
  await requireAll(cli, options, selection);
  if (selection.wide) await confirm(cli, options.yes, 'Give up all dead letters that meet this?');
  const by = userInfo().username;
  const progress = progressOn(cli.err);
  let dropped = 0;
  try {
    if (letters) {
      await onDesk(cli, options, async (desk) => {
        for await (const letter of desk.list(letters.processor, cli.signal)) {
          if (letters.matches(letter) && (await desk.drop(letter, reason, by))) progress.show(`${plural(++dropped, 'letter')} dropped`);
        }
        if (dropped === 0) await sayNothing(cli, options, desk);
      });
    }
    if (notifications) dropped += await onDatabase(cli, options, (pool) => dropDead(pool, notifications, reason, by));
  } finally {
    progress.end();
  }
  await cli.out.line(options.json ? JSON.stringify({ dropped }) : `Dropped: ${dropped}.`);
}

/** Says what there is instead of what was asked for; not to scripts, which count. */
async function sayNothing(cli: Cli, options: Common, desk: DeadLetterDesk): Promise<void> {
  const text = options.json ? undefined : await nothingText(desk, options, cli.signal);
  if (text !== undefined) await cli.err.line(text);
}

/** Everything that was named is there, before anything is done. */
async function requireAll(cli: Cli, options: Common, { letters, notifications }: Selection): Promise<void> {
  const missing: string[] = [];
  if (letters?.ids) {
    const found = await onDesk(cli, options, async (desk) => {
      const seen = new Set<string>();
      for await (const letter of desk.list(letters.processor, cli.signal)) if (letters.matches(letter)) seen.add(idOf(letter));
      return seen;
    });
    missing.push(...[...letters.ids].filter((id) => !found.has(id)));
  }
  if (notifications?.ids) {
    const { ids } = notifications;
    const found = await onDatabase(cli, options, (pool) => listDead(pool, notifications, ids.length));
    missing.push(...ids.filter((id) => !found.some((one) => one.id === id)).map((id) => `${notify}:${id}`));
  }
  if (missing.length > 0) throw unknown(missing);
}

function unknown(ids: readonly string[]): HeadwaterError {
  return usage('unknown_letter', ids.map((id) => `there is no dead letter ${id}`).join('\n'), '`headwater dlq list` shows what there is');
}

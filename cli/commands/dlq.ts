import { userInfo } from 'node:os';
import type { Command } from 'commander';
import type { ListedLetter } from '../../pipeline/runner/redrive/desk.ts';
import { type HeadwaterError, usage } from '../../pipeline/runtime/errors.ts';
import { count, duration, text } from '../../pipeline/runtime/setting-types.ts';
import { dropDead, listDead, redrive } from '../../processors/notify/redrive.ts';
import type { Cli } from '../cli.ts';
import { confirm } from '../confirm.ts';
import { listAll, shownAtOnce, type ListOptions } from '../dead-letters/listing.ts';
import { askFor, awaitAll, summaryLines } from '../dead-letters/redriving.ts';
import {
  changeOf,
  idOf,
  notify,
  selectionOf,
  selectionOptions,
  type LetterSelection,
  type Selection,
  type SelectionOptions,
} from '../dead-letters/selection.ts';
import { onDatabase, onDesk } from '../dead-letters/sources.ts';
import { letterDetail, letterText, notificationJson, notificationText } from '../dead-letters/text.ts';
import { Ended } from '../failure.ts';
import { progressOn } from '../progress.ts';
import { verb, type Verb } from '../verb.ts';

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

/** `headwater dlq list|show|redrive|drop` */
export function dlqCommand(cli: Cli): Command {
  return verb(cli, 'dlq', 'Dead letters: events that a processor could not apply, and notifications that were given up.', [
    ['dlq list', 'what there is, the oldest first'],
    ['dlq show cache:4711', 'one letter: its event, error and stack'],
    ['dlq redrive cache:4711', 'apply it now, for instance after the processor was corrected'],
    ['dlq drop cache:4711 --reason "test data"', 'give it up'],
  ])
    .addCommand(listCommand(cli))
    .addCommand(showCommand(cli))
    .addCommand(redriveCommand(cli))
    .addCommand(dropCommand(cli));
}

function listCommand(cli: Cli): Command {
  const list = verb(cli, 'list', 'List the dead letters, the oldest first, and how many each processor has.', [
    ['dlq list', 'all'],
    ['dlq list cache --code bad_event --older 1h', 'some of one processor'],
    ['dlq list notify --channel webhook', 'notifications that were given up'],
    ['dlq list --json | jq -r .id', 'a JSON object a line, and all of them'],
  ]).argument('[processor]', 'cache, alerts, aggregates, aggregates.<name>, notify');
  return selectionOptions(list)
    .value('-n, --count <n>', `show at most so many (default: ${shownAtOnce}; as JSON: all)`, count(1, 1e9).parse)
    .option('--dropped', 'those that were dropped, with the reasons')
    .dataOption()
    .option('--json', 'print a JSON object a line')
    .action((processor: string | undefined, options: ListOptions) => listAll(cli, processor, options));
}

function showCommand(cli: Cli): Command {
  return verb(cli, 'show', 'Show a dead letter: its event, the error with its stack, the attempts.', [
    ['dlq show cache:4711', 'of the processor cache, the event with sequence 4711'],
    ['dlq show cache:4711 --json | jq .event', 'the event alone'],
  ])
    .argument('<id>', 'as `dlq list` shows it')
    .dataOption()
    .option('--json', 'print a JSON object')
    .action((id: string, options: Common) => showOne(cli, id, options));
}

function redriveCommand(cli: Cli): Command {
  const command = verb(
    cli,
    'redrive',
    'Let the processors apply dead letters now: each has its effect once, and none on what newer events have changed since. Notifications are sent again.',
    [
      ['dlq redrive cache:4711', 'one'],
      ['dlq redrive --processor cache --code bad_event', 'all that meet conditions'],
      ['dlq redrive --all', 'everything but notifications'],
      ['dlq redrive --processor notify --channel webhook', 'notifications that were given up'],
    ],
  ).argument('[id...]', 'as `dlq list` shows them');
  return changeOptions(command)
    .value('--wait <duration>', 'how long to wait for a processor that does not answer (default: 1m)', duration.parse)
    .option('--no-wait', 'do not wait: it is done as soon as the processors work')
    .dataOption()
    .option('--json', 'print what became of them as JSON')
    .action((ids: string[], options: RedriveOptions) => redriveSome(cli, ids, options));
}

function dropCommand(cli: Cli): Command {
  const command = verb(cli, 'drop', 'Give up dead letters. What they held is kept, with the reason: `dlq list --dropped`.', [
    ['dlq drop cache:4711 --reason "test data"', 'one'],
    ['dlq drop --processor cache --older 30d --reason "rebuilt since" --yes', 'all that meet conditions, without asking'],
  ]).argument('[id...]', 'as `dlq list` shows them');
  return changeOptions(command)
    .value('--reason <text>', 'why: it is kept', text.parse)
    .option('--yes', 'do not ask')
    .dataOption()
    .option('--json', 'print how many there were as JSON')
    .action((ids: string[], options: DropOptions) => dropSome(cli, ids, options));
}

function changeOptions(command: Verb): Verb {
  return selectionOptions(command)
    .value('--processor <name>', 'only those of cache, alerts, aggregates, aggregates.<name> or notify', text.parse)
    .option('--all', 'all that there are');
}

async function showOne(cli: Cli, id: string, options: Common): Promise<void> {
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

async function redriveSome(cli: Cli, ids: readonly string[], options: RedriveOptions): Promise<void> {
  const selection = changeOf(ids, options);
  const waitMs = options.wait === false ? 0 : typeof options.wait === 'number' ? options.wait : defaultWaitMs;
  const { letters, notifications } = selection;
  await requireAll(cli, options, selection);
  let failed = false;
  if (letters) failed = await redriveLetters(cli, options, letters, waitMs);
  if (notifications) {
    const sent = await onDatabase(cli, options, (pool) => redrive(pool, notifications));
    await cli.out.line(
      options.json ? JSON.stringify({ notifications: sent }) : `${sent} notification${sent === 1 ? ' is' : 's are'} sent again.`,
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

async function dropSome(cli: Cli, ids: readonly string[], options: DropOptions): Promise<void> {
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
          if (letters.matches(letter) && (await desk.drop(letter, reason, by))) progress.show(`${++dropped} letters dropped`);
        }
      });
    }
    if (notifications) dropped += await onDatabase(cli, options, (pool) => dropDead(pool, notifications, reason, by));
  } finally {
    progress.end();
  }
  await cli.out.line(options.json ? JSON.stringify({ dropped }) : `Dropped: ${dropped}.`);
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

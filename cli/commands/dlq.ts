import type { Command } from 'commander';
import { count, duration, text } from '../../pipeline/runtime/setting-types.ts';
import type { Cli } from '../cli.ts';
import { selectionOptions, shownAtOnce } from '../dead-letters/selection.ts';
import { verb, type Verb } from '../verb.ts';

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
    .does(async () => (await import('../dead-letters/listing.ts')).listAll);
}

function showCommand(cli: Cli): Command {
  return verb(cli, 'show', 'Show a dead letter: its event, the error with its stack, the attempts.', [
    ['dlq show cache:4711', 'of the processor cache, the event with sequence 4711'],
    ['dlq show cache:4711 --json | jq .event', 'the event alone'],
  ])
    .argument('<id>', 'as `dlq list` shows it')
    .dataOption()
    .option('--json', 'print a JSON object')
    .does(async () => (await import('../actions/dlq.ts')).show);
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
    .does(async () => (await import('../actions/dlq.ts')).redrive);
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
    .does(async () => (await import('../actions/dlq.ts')).drop);
}

function changeOptions(command: Verb): Verb {
  return selectionOptions(command)
    .value('--processor <name>', 'only those of cache, alerts, aggregates, aggregates.<name> or notify', text.parse)
    .option('--all', 'all that there are');
}

import type { Command } from 'commander';
import { count, duration, text } from '../../pipeline/runtime/setting-types.ts';
import { decodeRowKey } from '../../schemas/row-key.ts';
import type { Cli } from '../cli.ts';
import { listOf, tableNames } from '../option-values.ts';
import { beginning, ending, faultsOf, givenTime, ops } from '../replay/request.ts';
import { verb, type Verb } from '../verb.ts';

/** `headwater replay` */
export function replayCommand(cli: Cli): Command {
  const command = verb(
    cli,
    'replay',
    'Read events of the log again, into a file, a NATS subject or an HTTP endpoint. Processors, their offsets and notifications are not touched.',
    [
      ['replay --from 1 --to-file log.ndjson.gz', 'all of the log, a JSON object a line'],
      ['replay --since 2h --tables prices --ops insert,update --to-subject replay.prices', 'to a NATS subject'],
      [`replay --from oldest --tables prices --where 'chain = "base"' --dry-run`, 'only counts'],
      ['replay --from 1 --to-url https://hooks.example.com/in --secret-file secret --rate 500', 'in signed batches'],
      ['replay --from 1 --to-file log.ndjson.gz --resume', 'goes on where it was interrupted'],
    ],
  );
  return withTargets(withRange(command))
    .option('--resume', 'go on exactly where the same replay, with the same options, was interrupted')
    .value('--checkpoint <file>', 'where to keep how far it has come (default: beside the file, else in the data directory)', text.parse)
    .option('--json', 'print what was done as JSON')
    .dataOption()
    .check(faultsOf)
    .does(async () => (await import('../actions/replay.ts')).replay);
}

function withRange(command: Verb): Verb {
  return command
    .value('--from <seq>', 'begin at this sequence number, or at the oldest event: oldest', beginning.parse)
    .value(
      '--since <time>',
      'begin at the first event committed at this time or later: 2026-11-22T12:00:00Z, or 2h ago: 2h',
      givenTime.parse,
    )
    .value(
      '--to <seq|time>',
      'the last sequence number, or the time before which to end (default: the log’s end as it is now)',
      ending.parse,
    )
    .value('--tables <list>', 'only rows of these tables: <schema>.<table>, or a name in "public"', tableNames)
    .value('--ops <list>', 'only these operations: insert, update, delete, truncate, read', ops)
    .value('--key <key>', 'only the row with this primary key, several columns joined by ":" (may be repeated)', keys)
    .value(
      '--where <condition>',
      'only rows, new or old, that meet this condition: price > 100 AND chain IN ("base", "optimism")',
      text.parse,
    )
    .value('--subjects <list>', 'only these NATS subjects, with wildcards: ev.public.*.insert', listOf(Boolean, 'NATS subjects'))
    .option('--no-ticks', 'leave out the ticks of the clock');
}

function withTargets(command: Verb): Verb {
  return command
    .value('--to-file <file>', 'NDJSON, {"seq":…,"event":…} a line; compressed when it ends in .gz', text.parse)
    .value('--to-subject <subject>', 'a NATS subject; ending in .> each event keeps the rest of its own: replay.>', text.parse)
    .value('--to-url <url>', 'HTTP POST in batches, in order, retried', text.parse)
    .value('--to-processor <name>', 'a processor, from the oldest event on, beside its live state: rebuild <name> --no-flip', text.parse)
    .option('--dry-run', 'only count')
    .option('--overwrite', 'replace the file; forget a replay to this target that was interrupted')
    .value('--rate <n>', 'at most so many events a second', count(1, 1e9).parse)
    .value('--batch <n>', 'events in a batch over HTTP (default: 500, or the rate)', count(1, 10_000).parse)
    .value('--secret-file <file>', 'sign batches over HTTP with the whsec_… in this file, one a line', text.parse)
    .value('--give-up <duration>', 'how long to try what is not taken; 0: once (default: 15m)', duration.parse);
}

/** Keys can have commas in them. */
function keys(key: string, previous: readonly string[] = []): readonly string[] {
  if (key === '') throw new Error('must be a key');
  if (decodeRowKey(key) === undefined) throw new Error('must be percent-encoded UTF-8, with %25 for a "%"');
  return [...previous, key];
}

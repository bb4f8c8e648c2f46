import type { Command } from 'commander';
import { count } from '../../pipeline/runtime/setting-types.ts';
import type { Cli } from '../cli.ts';
import { sequence } from '../option-values.ts';
import { verb } from '../verb.ts';

/** `headwater tail` */
export function tailCommand(cli: Cli): Command {
  return verb(cli, 'tail', 'Follow the log: one line an event, until Ctrl-C.', [
    ['tail', 'all that happens from now on'],
    ['tail public.prices --from 1', 'one table, from the beginning'],
    ['tail prices --json | jq .event.after', 'the events themselves, a JSON object a line'],
  ])
    .argument('[table]', 'only this table: <schema>.<table>, or a name in "public"')
    .value('--from <seq>', 'begin at this sequence number (default: what comes next)', sequence.parse)
    .value('-n, --count <n>', 'end after so many events', count(1, 1e12).parse)
    .option('--ticks', 'show the ticks of the clock too (JSON lines always have them)')
    .option('--json', 'one JSON object a line: {"seq":…,"event":…}, the event as the log has it')
    .dataOption()
    .does(async () => (await import('../actions/tail.ts')).tail);
}

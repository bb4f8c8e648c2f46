import type { Command } from 'commander';
import type { RebuildOptions } from '../actions/rebuild.ts';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater rebuild` */
export function rebuildCommand(cli: Cli): Command {
  return verb(
    cli,
    'rebuild',
    'Make a processor’s state anew from the log beside the live one, compare the two, and let the new one take its place in one step. Nobody is notified.',
    [
      ['rebuild cache', 'fill, compare, flip; interrupted, the same command goes on'],
      ['rebuild cache --no-flip', 'fill and compare; later: rebuild cache --flip'],
      ['rebuild aggregates.price', 'one of the aggregates; all of them: rebuild aggregates'],
      ['rebuild cache --drop', 'remove the state of before, which is kept until then (--flip goes back to it)'],
      ['rebuild --status', 'what stands beside the live states'],
    ],
  )
    .argument('[processor]', 'cache, alerts, aggregates or aggregates.<name>, and those of HEADWATER_PROCESSORS')
    .option('--flip', 'flip what was filled before; after a flip: go back to the state of before')
    .option('--no-flip', 'leave it beside, filled and compared')
    .option('--no-backfill', 'where the log no longer holds all: do not ask capture for the rows that are missing')
    .option('--status', 'show what stands beside')
    .option('--abort', 'remove what has been made, unless it has been flipped')
    .option('--drop', 'remove the state of before')
    .option('--json', 'print what was done as a JSON object a line')
    .dataOption()
    .check(faultsOf)
    .does(async () => (await import('../actions/rebuild.ts')).rebuild);
}

function faultsOf(name: string | undefined, { status, abort, drop, flip }: RebuildOptions): readonly string[] {
  const faults: string[] = [];
  const orders = [status && '--status', abort && '--abort', drop && '--drop', flip !== undefined && (flip ? '--flip' : '--no-flip')].filter(
    Boolean,
  );
  if (orders.length > 1) faults.push(`give one of ${orders.join(', ')}, not several`);
  if (name === undefined && !status) faults.push('name a processor');
  return faults;
}

import type { Command } from 'commander';
import { refused, usage } from '../../pipeline/runtime/errors.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import type { Operation } from '../../pipeline/capture/operations.ts';
import { backfill, detach, resnapshot } from '../capture-actions.ts';
import { loadCatalog } from '../roles/catalog.ts';
import { withServers } from '../connections.ts';
import { configOf, type Cli } from '../cli.ts';
import { progressOn } from '../progress.ts';
import { verb } from '../verb.ts';

interface BackfillOptions {
  readonly all?: boolean;
  readonly where?: string;
  readonly acceptGap?: boolean;
  readonly data?: string;
}

interface Confirmed {
  readonly yes?: boolean;
  readonly data?: string;
}

/** `headwater backfill` */
export function backfillCommand(cli: Cli): Command {
  return verb(cli, 'backfill', 'Log the present rows of a table, as "read" events, while the stream goes on.', [
    ['backfill public.prices', 'one table'],
    [`backfill prices --where "chain = 'base'"`, 'some of its rows'],
    ['backfill --all --accept-gap', 'after a gap: every table, in a new epoch'],
  ])
    .argument('[table]', '<schema>.<table>, or a name in "public"')
    .option('--all', 'every captured table')
    .option('--where <condition>', 'only rows that meet this SQL condition')
    .option('--accept-gap', 'go on over a gap in the log: what happened in it is lost, and a new epoch begins')
    .dataOption()
    .action(async (table: string | undefined, options: BackfillOptions) => {
      const faults: string[] = [];
      if (table === undefined && !options.all) faults.push(`name a table, or give --all`);
      if (table !== undefined && options.all) faults.push(`give a table or --all, not both`);
      if (options.where !== undefined && options.all) faults.push('--where belongs to one table, not to --all');
      if (options.acceptGap && !options.all) faults.push('--accept-gap needs --all: a gap concerns every table');
      if (faults.length > 0) throw usage('bad_arguments', faults.join('\n'), '`headwater backfill --help` shows what it takes');
      const name = table === undefined || table.includes('.') ? table : `public.${table}`;
      await act(cli, options.data, (context) =>
        backfill({ table: name, where: options.where, acceptGap: options.acceptGap === true }, context),
      );
    });
}

/** `headwater detach` */
export function detachCommand(cli: Cli): Command {
  return verb(
    cli,
    'detach',
    'Drop Headwater’s slot and publications from the database, so that it keeps no more WAL for it. The log stays.',
    [
      ['detach', 'asks first'],
      ['detach --yes', 'does not ask'],
    ],
  )
    .option('--yes', 'do not ask')
    .dataOption()
    .action(async ({ yes, data }: Confirmed) => {
      await confirm(cli, yes, 'Changes after this are never captured. Drop the slot and the publications?');
      await act(cli, data, detach);
    });
}

/** `headwater resnapshot` */
export function resnapshotCommand(cli: Cli): Command {
  return verb(cli, 'resnapshot', 'Begin a new epoch from a fresh snapshot of every table. Positions and tokens of before become invalid.', [
    ['resnapshot', 'asks first'],
    ['resnapshot --yes', 'does not ask'],
  ])
    .option('--yes', 'do not ask')
    .dataOption()
    .action(async ({ yes, data }: Confirmed) => {
      await confirm(cli, yes, 'Every reader has to begin anew. Start a new epoch?');
      await act(cli, data, resnapshot);
    });
}

async function act(cli: Cli, data: string | undefined, action: (operation: Operation) => Promise<string>): Promise<void> {
  const given = configOf(cli, { data });
  const log = createLogger(given.logLevel);
  const progress = progressOn(cli.err);
  try {
    const done = await withServers(given, log, cli.signal, async (config) =>
      action({ config, catalog: await loadCatalog(config), log, signal: cli.signal, progress: progress.show }),
    );
    progress.end();
    await cli.out.line(done);
  } finally {
    progress.end();
  }
}

async function confirm(cli: Cli, yes: boolean | undefined, question: string): Promise<void> {
  if (yes) return;
  if (!cli.ask)
    throw refused('not_confirmed', 'this has to be confirmed, and there is no terminal to ask on', 'give --yes if you are sure');
  const answer = await cli.ask(`${question} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw refused('not_confirmed', 'not confirmed: nothing was changed');
}

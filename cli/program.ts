import type { Command } from 'commander';
import type { Cli } from './cli.ts';
import { backfillCommand } from './commands/backfill.ts';
import { detachCommand, resnapshotCommand } from './commands/capture.ts';
import { catalogCommand } from './commands/catalog.ts';
import { configCommand } from './commands/config.ts';
import { consumersCommand } from './commands/consumers.ts';
import { dlqCommand } from './commands/dlq.ts';
import { keysCommand } from './commands/keys.ts';
import { migrateCommand } from './commands/migrate.ts';
import { rebuildCommand } from './commands/rebuild.ts';
import { replayCommand } from './commands/replay.ts';
import { rulesCommand } from './commands/rules.ts';
import { statusCommand } from './commands/status.ts';
import { tailCommand } from './commands/tail.ts';
import { upCommand } from './commands/up.ts';
import { runCommand } from './commands/run.ts';
import { verb } from './verb.ts';

const exitCodesHelp = 'Exit codes: 0 done, 1 failed or unhealthy, 2 wrong usage or configuration, 3 refused for safety.';

/** The whole command line. */
export function createProgram(cli: Cli, version: string): Command {
  const program = verb(cli, 'headwater', 'Turns a Postgres database into a live, replayable event log, and serves that log to people.', [
    ['up --demo', 'local services, every role and a demo market'],
    ['tail prices', 'follow a table'],
    ['keys create dashboard', 'an API key'],
  ]);
  program
    .version(version, '-V, --version', 'show the version')
    .addHelpText('after', `\n${exitCodesHelp}\nSettings are environment variables: \`headwater config\` lists them.`);
  // An option behind a verb is that verb’s, also where a verb has verbs of its own.
  program.enablePositionalOptions();
  const commands = [
    upCommand(cli),
    runCommand(cli),
    migrateCommand(cli),
    keysCommand(cli),
    configCommand(cli),
    catalogCommand(cli),
    statusCommand(cli),
    tailCommand(cli),
    replayCommand(cli),
    rebuildCommand(cli),
    rulesCommand(cli),
    backfillCommand(cli),
    dlqCommand(cli),
    consumersCommand(cli),
    detachCommand(cli),
    resnapshotCommand(cli),
  ];
  for (const command of commands) program.addCommand(command);
  return program;
}

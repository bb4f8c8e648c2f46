import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater catalog init` */
export function catalogCommand(cli: Cli): Command {
  return verb(cli, 'catalog', 'The catalogue: what the tables of a database mean to readers of the log.', [
    ['catalog init', 'write one for the database'],
  ]).addCommand(initCommand(cli));
}

function initCommand(cli: Cli): Command {
  return verb(cli, 'init', 'Write a catalogue from an existing database: every table, with its columns and what identifies its rows.', [
    ['catalog init', 'to catalog.yaml'],
    ['catalog init defi.yaml --force', 'to another file, replacing it'],
    ['catalog init -', 'to stdout'],
  ])
    .argument('[file]', 'where to; - for stdout', 'catalog.yaml')
    .option('--force', 'replace a file that is there')
    .dataOption()
    .does(async () => (await import('../actions/catalog.ts')).init);
}

import type { Command } from 'commander';
import { settings } from '../../pipeline/runtime/settings.ts';
import type { Cli } from '../cli.ts';
import { verb, type Verb } from '../verb.ts';

/** `headwater rules apply|list|export` */
export function rulesCommand(cli: Cli): Command {
  return verb(cli, 'rules', 'Alert rules of a running gateway, as the owner of a key has them.', [
    ['rules apply -f rules.yaml --dry-run', 'what would change'],
    ['rules apply -f rules.yaml', 'make the stored rules those of the file'],
    ['rules list', 'all rules'],
    ['rules export > rules.yaml', 'begin a file with the rules that are there'],
  ])
    .addCommand(applyCommand(cli))
    .addCommand(listCommand(cli))
    .addCommand(exportCommand(cli));
}

function applyCommand(cli: Cli): Command {
  const command = verb(
    cli,
    'apply',
    'Create and change rules so that they are as in files, by name. Every fault of every rule is told before anything is written.',
    [
      ['rules apply -f rules.yaml --dry-run', '+ would be created, ~ changed, - removed'],
      ['rules apply -f team.yaml -f ops.yaml --prune', 'removes what is in no file'],
      ['rules apply -f rules.yaml --gateway https://hw.example.com', 'with the key in HEADWATER_KEY'],
    ],
  );
  return withTarget(
    command
      .value(
        '-f, --file <file>',
        'rules in YAML or JSON: `rules:` and a list; may be given several times',
        (text, previous: readonly string[] = []) => [...previous, text],
      )
      .option('--dry-run', 'print what would change, and change nothing')
      .option('--prune', 'remove rules that are in no file'),
  )
    .option('--json', 'print what is done as a JSON object')
    .does(async () => (await import('../actions/rules.ts')).apply);
}

function listCommand(cli: Cli): Command {
  return withTarget(
    verb(cli, 'list', 'List the rules, the oldest first.', [
      ['rules list', 'a table'],
      ['rules list --json', 'a JSON array of rules as REST has them'],
    ]),
  )
    .option('--json', 'print a JSON array')
    .does(async () => (await import('../actions/rules.ts')).list);
}

function exportCommand(cli: Cli): Command {
  return withTarget(
    verb(cli, 'export', 'Print the rules as `rules apply` takes them. Secrets of webhooks are not in it: they stay as they are.', [
      ['rules export > rules.yaml', 'in YAML, conditions as text'],
      ['rules export --json', 'in JSON'],
    ]),
  )
    .option('--json', 'print JSON')
    .does(async () => (await import('../actions/rules.ts')).exportAll);
}

function withTarget(command: Verb): Verb {
  const { gateway, key } = settings;
  return command
    .value('--gateway <url>', `address of the gateway (default: ${gateway.env}, else the one in run.json)`, gateway.type.parse)
    .value('--key <key>', `API key with the scope alerts (default: ${key.env}, else the one in run.json)`, key.type.parse)
    .dataOption();
}

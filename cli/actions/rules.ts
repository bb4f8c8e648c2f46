import { readFile } from 'node:fs/promises';
import { stringify } from 'yaml';
import { messageOf, usage, type HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { printCondition } from '../../schemas/condition/print.ts';
import type { RuleResource } from '../../schemas/generated/rule.ts';
import { configOf, type Cli } from '../cli.ts';
import type { Output } from '../output.ts';
import { readRunFile, runFilePath } from '../run-file.ts';
import { RulesClient, type Target } from '../rules/rules-client.ts';
import { parseRulesFile, type FileFault, type FileRule } from '../rules/rules-file.ts';
import { fileForm, planOf, type Difference, type Plan } from '../rules/rules-plan.ts';
import { table } from '../table.ts';

interface Common {
  readonly gateway?: string;
  readonly key?: string;
  readonly data?: string;
  readonly json?: boolean;
}

interface ApplyOptions extends Common {
  readonly file?: readonly string[];
  readonly dryRun?: boolean;
  readonly prune?: boolean;
}

/** Makes the stored rules those of files. */
export async function apply(cli: Cli, options: ApplyOptions): Promise<void> {
  const wanted = await readFiles(options.file ?? [], cli.env);
  const client = await clientOf(cli, options);
  const plan = planOf(wanted, await client.list());
  const faults = [...plan.faults];
  for (const one of [...plan.create, ...plan.change.map((change) => change.wanted)]) {
    for (const { field, message } of await client.judge(one.given)) faults.push(one.fault(field, message));
  }
  if (faults.length > 0) throw faulty(faults);
  const removed = options.prune ? plan.others : [];
  const kept = options.prune ? [] : plan.others.map(({ name }) => name);
  if (!options.json) await cli.out.write(planText(plan, removed, cli.out));
  const done = options.dryRun ? doneOf(plan, removed) : await execute(client, plan, removed, cli, options);
  if (options.json) return cli.out.line(JSON.stringify({ dryRun: options.dryRun === true, ...done, kept }));
  await cli.out.line(summary(done, options.dryRun === true));
  if (kept.length > 0)
    await cli.err.line(
      `${count(kept.length, 'rule is', 'rules are')} in no file and ${kept.length === 1 ? 'stays' : 'stay'}: ${kept.join(', ')}. --prune removes them.`,
    );
}

/** Prints the rules. */
export async function list(cli: Cli, options: Common): Promise<void> {
  const rules = await (await clientOf(cli, options)).list();
  if (options.json) return cli.out.line(JSON.stringify(rules));
  if (rules.length === 0) return cli.out.line('There are no rules. `headwater rules apply -f rules.yaml` makes some.');
  const rows = rules.map((rule) => [
    rule.name,
    rule.table,
    printCondition(rule.when),
    rule.severity,
    rule.enabled ? 'on' : 'off',
    `${rule.revision}`,
  ]);
  await cli.out.line(table(cli.out, ['NAME', 'TABLE', 'WHEN', 'SEVERITY', 'STATE', 'REVISION'], rows));
}

/** Prints the rules as `apply` takes them. */
export async function exportAll(cli: Cli, options: Common): Promise<void> {
  const rules = (await (await clientOf(cli, options)).list()).map(fileForm);
  await cli.out.write(options.json ? `${JSON.stringify({ rules })}\n` : stringify({ rules }, { lineWidth: 0 }));
}

/** The gateway and the key that are named, else those of a running `up`, whose key goes to its own gateway only. */
async function clientOf(cli: Cli, { gateway: named, key: given, data }: Common): Promise<RulesClient> {
  const config = configOf(cli, { gateway: named, key: given, data });
  const run = config.gateway === undefined || config.key === undefined ? await readRunFile(config.data) : undefined;
  const gateway = config.gateway ?? run?.gateway;
  if (gateway === undefined)
    throw usage(
      'nothing_running',
      `nothing is running in ${config.data} (there is no ${runFilePath(config.data)})`,
      'start it with `npm start`, or name a gateway with --gateway or HEADWATER_GATEWAY',
    );
  const { username, password } = new URL(gateway);
  if (username !== '' || password !== '')
    throw usage(
      'bad_gateway',
      'the address of the gateway has a user or a password in it',
      'leave them out: the API key is what it asks for',
    );
  const key = config.key ?? (gateway === run?.gateway ? run.key : undefined);
  if (key === undefined)
    throw usage(
      'no_key',
      `no key is given for the gateway at ${gateway}`,
      'set HEADWATER_KEY, or give --key; `headwater keys create <name> --scopes alerts` makes one',
    );
  const target: Target = { gateway, key };
  return new RulesClient(target, cli.signal);
}

async function readFiles(names: readonly string[], env: Cli['env']): Promise<readonly FileRule[]> {
  if (names.length === 0) throw usage('bad_arguments', 'no file is given', 'name one with -f: `headwater rules apply -f rules.yaml`');
  const [rules, faults]: [FileRule[], FileFault[]] = [[], []];
  for (const name of names) {
    const text = await readFile(name, 'utf8').catch((error: unknown) => {
      throw usage('no_file', `${name} cannot be read: ${messageOf(error)}`);
    });
    const file = parseRulesFile(text, name, env);
    rules.push(...file.rules);
    faults.push(...file.faults);
  }
  if (faults.length > 0) throw faulty(faults);
  return rules;
}

/** In the order of the files. */
function faulty(faults: readonly FileFault[]): HeadwaterError {
  const files = [...new Set(faults.map(({ file }) => file))];
  const sorted = files.flatMap((name) => faults.filter(({ file }) => file === name).sort((a, b) => a.line - b.line));
  const lines = sorted.map(({ file, line, message }) => `${file}:${line}: ${message}`);
  return usage('bad_rules', [...new Set(lines)].join('\n'), 'nothing has been changed: mend the file, and apply it again');
}

/** What has been done, or would be. */
interface Done {
  readonly created: readonly { readonly name: string; readonly id?: string; readonly secrets?: Readonly<Record<string, string>> }[];
  readonly changed: readonly {
    readonly name: string;
    readonly id: string;
    readonly differences: readonly Difference[];
    readonly secrets?: Readonly<Record<string, string>>;
  }[];
  readonly removed: readonly { readonly name: string; readonly id: string }[];
  readonly unchanged: number;
}

function doneOf({ create, change, same }: Plan, removed: readonly RuleResource[]): Done {
  return {
    created: create.map(({ rule: { name } }) => ({ name })),
    changed: change.map(({ stored: { name, id }, differences }) => ({ name, id, differences })),
    removed: removed.map(({ name, id }) => ({ name, id })),
    unchanged: same.length,
  };
}

/** One rule after the other; whatever stops it, applying again goes on from there. */
async function execute(client: RulesClient, plan: Plan, remove: readonly RuleResource[], cli: Cli, options: ApplyOptions): Promise<Done> {
  const created: Done['created'][number][] = [];
  const changed: Done['changed'][number][] = [];
  const told = async (rule: RuleResource): Promise<{ secrets?: Readonly<Record<string, string>> }> => {
    const secrets = secretsOf(rule);
    if (!secrets) return {};
    for (const [url, secret] of Object.entries(options.json ? {} : secrets))
      await cli.out.line(`  the secret that signs what ${JSON.stringify(rule.name)} sends to ${url}, shown this once: ${secret}`);
    return { secrets };
  };
  for (const { rule } of plan.create) {
    const stored = await client.create(rule);
    created.push({ name: stored.name, id: stored.id, ...(await told(stored)) });
  }
  for (const { stored, wanted, differences } of plan.change) {
    const after = await client.replace(stored, wanted.rule);
    changed.push({ name: after.name, id: after.id, differences, ...(await told(after)) });
  }
  let unchanged = 0;
  for (const { stored, wanted, confirm } of plan.same) {
    const { revision } = confirm ? await client.replace(stored, wanted.rule) : stored;
    if (revision === stored.revision) unchanged++;
    else
      changed.push({
        name: stored.name,
        id: stored.id,
        differences: [{ member: 'channels', from: 'another secret', to: 'the secret of the file' }],
      });
  }
  const removed: Done['removed'][number][] = [];
  for (const rule of remove) {
    await client.remove(rule);
    removed.push({ name: rule.name, id: rule.id });
  }
  return { created, changed, removed, unchanged };
}

/** Secrets that the gateway has made, by the address of their webhook. */
function secretsOf({ channels }: RuleResource): Readonly<Record<string, string>> | undefined {
  const made = channels.flatMap((channel) =>
    channel.type === 'webhook' && channel.secret !== undefined ? [[channel.url, channel.secret] as const] : [],
  );
  return made.length === 0 ? undefined : Object.fromEntries(made);
}

function planText({ create, change }: Plan, removed: readonly RuleResource[], { colors: { green, yellow, red } }: Output): string {
  return [
    ...create.map(({ rule }) => `${green('+')} ${rule.name}`),
    ...change.flatMap(({ stored, differences }) => [
      `${yellow('~')} ${stored.name}`,
      ...differences.map(({ member, from, to }) => `    ${member}: ${from} → ${to}`),
    ]),
    ...removed.map(({ name }) => `${red('-')} ${name}`),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

function summary({ created, changed, removed, unchanged }: Done, dryRun: boolean): string {
  const verbs = dryRun ? ['to create', 'to change', 'to remove'] : ['created', 'changed', 'removed'];
  return `${created.length} ${verbs[0]}, ${changed.length} ${verbs[1]}, ${removed.length} ${verbs[2]}, ${unchanged} unchanged`;
}

function count(n: number, one: string, many: string): string {
  return `${n} ${n === 1 ? one : many}`;
}

import { isDeepStrictEqual } from 'node:util';
import type { RuleCondition } from '../../schemas/condition/condition.ts';
import { printCondition } from '../../schemas/condition/print.ts';
import { parseDuration, printDuration } from '../../schemas/duration.ts';
import type { RuleResource } from '../../schemas/generated/rule.ts';
import type { RuleDocument } from '../../schemas/rule.ts';
import type { FileFault, FileRule } from './rules-file.ts';

/** A member of a rule that is to change; texts for people. */
export interface Difference {
  readonly member: string;
  readonly from: string;
  readonly to: string;
}

export interface Change {
  readonly stored: RuleResource;
  readonly wanted: FileRule;
  readonly differences: readonly Difference[];
}

/** What it takes to make the stored rules those of the files. Rules are known by their names. */
export interface Plan {
  readonly create: readonly FileRule[];
  readonly change: readonly Change[];
  /** Stored as they are wanted, as far as can be seen. `confirm`: they name secrets, which only the gateway can compare. */
  readonly same: readonly (Change & { readonly confirm: boolean })[];
  /** Stored, and in no file. */
  readonly others: readonly RuleResource[];
  /** Names that do not name one rule. */
  readonly faults: readonly FileFault[];
}

export function planOf(wanted: readonly FileRule[], stored: readonly RuleResource[]): Plan {
  const faults: FileFault[] = [];
  const byName = new Map<string, RuleResource[]>();
  for (const rule of stored) byName.set(rule.name, [...(byName.get(rule.name) ?? []), rule]);
  const seen = new Set<string>();
  const [create, change, same]: [FileRule[], Change[], (Change & { confirm: boolean })[]] = [[], [], []];
  for (const one of wanted) {
    const { name, channels } = one.rule;
    if (seen.has(name)) faults.push(one.fault('name', 'is the name of a rule further up, too: rules are known by their names'));
    seen.add(name);
    const [existing, ...more] = byName.get(name) ?? [];
    if (more.length > 0)
      faults.push(
        one.fault(
          'name',
          `is the name of ${more.length + 1} stored rules: delete or rename all but one of ${[existing!, ...more].map(({ id }) => id).join(', ')}`,
        ),
      );
    else if (!existing) create.push(one);
    else {
      const differences = differencesOf(existing, one.rule);
      const confirm = channels.some((channel) => channel.type === 'webhook' && channel.secret !== undefined);
      if (differences.length > 0) change.push({ stored: existing, wanted: one, differences });
      else same.push({ stored: existing, wanted: one, differences, confirm });
    }
  }
  return { create, change, same, others: stored.filter(({ name }) => !seen.has(name)), faults };
}

function differencesOf(stored: RuleResource, wanted: RuleDocument): readonly Difference[] {
  const [before, after] = [membersOf(stored, stored, wanted), membersOf(wanted, stored, wanted)];
  return Object.keys(after)
    .filter((member) => !isDeepStrictEqual(before[member], after[member]))
    .map((member) => ({ member, from: textOf(member, before[member]), to: textOf(member, after[member]) }));
}

/** The members of either in one form: what is the same is equal. */
function membersOf(rule: RuleResource | RuleDocument, stored: RuleResource, wanted: RuleDocument): Readonly<Record<string, unknown>> {
  return {
    table: rule.table,
    match: rule.match,
    groupBy: rule.groupBy,
    when: rule.when,
    for: parseDuration(rule.for),
    clear: rule.clear,
    keepFiringFor: parseDuration(rule.keepFiringFor),
    cooldown: parseDuration(rule.cooldown),
    severity: rule.severity,
    channels: rule === stored ? storedChannels(stored, wanted) : wanted.channels.map(shownChannel),
    enabled: rule.enabled,
  };
}

type Shown = Readonly<Record<string, string>>;

/** Of a secret its end alone. */
function shownChannel(channel: RuleDocument['channels'][number]): Shown {
  if (channel.type !== 'webhook' || channel.secret === undefined) return { ...channel };
  const { type, url, secret } = channel;
  return { type, url, secret: `…${secret.slice(-4)}` };
}

/** Secrets are compared where the file has one; where it has none, the stored one stays. */
function storedChannels({ channels }: RuleResource, wanted: RuleDocument): readonly Shown[] {
  return channels.map((channel, i): Shown => {
    if (channel.type !== 'webhook') return { ...channel };
    const other = wanted.channels[i];
    const named = other?.type === 'webhook' && other.secret !== undefined;
    return { type: 'webhook', url: channel.url, ...(named && channel.secretHint !== undefined && { secret: channel.secretHint }) };
  });
}

function textOf(member: string, value: unknown): string {
  if (value === undefined) return 'none';
  if (member === 'when' || member === 'clear') return printCondition(value as RuleCondition);
  if (member === 'for' || member === 'keepFiringFor' || member === 'cooldown') return printDuration(value as number);
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A rule as a file has it: without what is as it would be anyway, conditions as text. */
export function fileForm(rule: RuleResource): Readonly<Record<string, unknown>> {
  const duration = (name: 'for' | 'keepFiringFor' | 'cooldown'): object => (parseDuration(rule[name]) === 0 ? {} : { [name]: rule[name] });
  return {
    name: rule.name,
    table: rule.table,
    ...(Object.keys(rule.match).length > 0 && { match: rule.match }),
    ...(rule.groupBy && { groupBy: rule.groupBy }),
    when: printCondition(rule.when),
    ...duration('for'),
    ...(rule.clear && { clear: printCondition(rule.clear) }),
    ...duration('keepFiringFor'),
    ...duration('cooldown'),
    severity: rule.severity,
    ...(rule.channels.length > 0 && {
      channels: rule.channels.map((channel) => (channel.type === 'webhook' ? { type: 'webhook', url: channel.url } : channel)),
    }),
    ...(!rule.enabled && { enabled: false }),
  };
}

import type { RuleCondition, Scalar } from '../../../schemas/condition/condition.ts';
import { printDuration } from '../../../schemas/duration.ts';
import type { Severity } from '../model.ts';
import { shownChannel, type StoredChannel } from './channels.ts';
import type { Position } from './pages.ts';

/** A rule as it is written: the members of a request that are the rule itself, with defaults filled in. Times in seconds. */
export interface RuleContent {
  readonly name: string;
  /** `<schema>.<table>` */
  readonly table: string;
  readonly match: Readonly<Record<string, readonly Scalar[]>>;
  readonly groupBy: readonly string[] | undefined;
  readonly when: RuleCondition;
  readonly clear: RuleCondition | undefined;
  readonly forSeconds: number;
  readonly keepFiringForSeconds: number;
  readonly cooldownSeconds: number;
  readonly severity: Severity;
  readonly enabled: boolean;
}

/** A row of `headwater.alert_rules`, as `ruleColumns` selects it. */
export interface RuleRow extends Position {
  readonly revision: number;
  readonly user_id: string;
  readonly name: string;
  readonly table_name: string;
  readonly match: Readonly<Record<string, readonly Scalar[]>>;
  readonly group_by: readonly string[] | null;
  readonly condition: RuleCondition;
  readonly clear_condition: RuleCondition | null;
  readonly for_seconds: number;
  readonly keep_firing_for_seconds: number;
  readonly cooldown_seconds: number;
  readonly severity: Severity;
  readonly channels: readonly StoredChannel[];
  readonly enabled: boolean;
  readonly updated_at: string;
}

/** A column of type timestamptz in ISO 8601 with microseconds, whatever the connection's settings. */
export function isoTime(column: string): string {
  return `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

export const ruleColumns = `id, revision, user_id, name, table_name, match, group_by, condition, clear_condition, for_seconds,
  keep_firing_for_seconds, cooldown_seconds, severity, channels, enabled, ${isoTime('created_at')} AS at, ${isoTime('updated_at')} AS updated_at`;

/** Members of a rule that the server sets: in requests they are ignored, so that what was read can be sent back. */
const ownMembers: ReadonlySet<string> = new Set(['id', 'revision', 'userId', 'createdAt', 'updatedAt']);
const ownChannelMembers: ReadonlySet<string> = new Set(['secretHint', 'previousSecretUntil']);

/** The rule as answers show it. `made`: secrets made by this very request, by index of their channel. */
export function ruleResource(row: RuleRow, made: ReadonlyMap<number, string> = new Map()): object {
  const seconds = (value: number): string => printDuration(value * 1_000_000);
  return {
    id: row.id,
    revision: row.revision,
    userId: row.user_id,
    name: row.name,
    table: row.table_name,
    match: row.match,
    ...(row.group_by && { groupBy: row.group_by }),
    when: row.condition,
    for: seconds(row.for_seconds),
    ...(row.clear_condition && { clear: row.clear_condition }),
    keepFiringFor: seconds(row.keep_firing_for_seconds),
    cooldown: seconds(row.cooldown_seconds),
    severity: row.severity,
    channels: row.channels.map((channel, i) => shownChannel(channel, made.get(i))),
    enabled: row.enabled,
    createdAt: row.at,
    updatedAt: row.updated_at,
  };
}

/** The body without what only the server sets. */
export function withoutOwnMembers(body: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const rest = without(body, ownMembers);
  const { channels } = rest;
  if (!Array.isArray(channels)) return rest;
  return { ...rest, channels: channels.map((channel: unknown) => (isObject(channel) ? without(channel, ownChannelMembers) : channel)) };
}

/** What a PATCH makes of a rule: each member of the patch replaces the rule's whole, null takes it away. */
export function patched(rule: object, patch: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries([...Object.entries(rule), ...Object.entries(patch)].filter(([name]) => patch[name] !== null));
}

function without(object: Readonly<Record<string, unknown>>, names: ReadonlySet<string>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.has(name)));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

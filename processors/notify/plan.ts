import type { RuleCondition } from '../../schemas/condition/condition.ts';
import { microsOfText } from './micros.ts';
import { noticeOf, summaryOf, timeOf, type OutboxRow } from './notices.ts';
import type { ChannelName, NotifyOptions } from './options.ts';
import { shortHash, targetsOf, type Device, type PlannedTarget, type StoredChannel } from './targets.ts';

/** Why a notification is not sent by itself. Of `throttled` and `digested`, a digest tells. */
export type Suppressed =
  'silenced' | 'cooldown' | 'throttled' | 'digested' | 'disabled' | 'no_channels' | 'rule_gone' | 'no_devices' | 'not_configured';

/** A row of `headwater.notification_jobs` to be. */
export interface PlannedJob {
  readonly job_id: string;
  readonly transition: 'firing' | 'resolved' | 'digest';
  readonly alert_id: string | null;
  readonly rule_id: string | null;
  readonly user_id: string;
  readonly entity_key: string | null;
  /** Log time; ISO 8601. */
  readonly at: string;
  readonly channel: ChannelName | 'none';
  readonly target_key: string;
  readonly target: object;
  readonly endpoint: string;
  readonly notice: object | null;
  readonly state: 'queued' | 'suppressed' | 'collecting';
  readonly reason: Suppressed | typeof firingFirst | null;
  readonly digest_id: string | null;
}

export interface KnownRule {
  readonly channels: readonly StoredChannel[];
  readonly cooldownMicros: number;
  /** Last change of the row, whatever it was (µs). */
  readonly updatedAt: number;
}

/** Times in µs since 1970: `from` ≤ silent < `until`. */
export interface Silence {
  readonly ruleId: string | null;
  readonly match: Readonly<Record<string, unknown>>;
  readonly from: number;
  readonly until: number;
}

/** Why a job that is queued has to wait: for the notice of the firing, which the one of its end must not overtake. */
export const firingFirst = 'firing_first';

/** How a firing notice went to a target: by itself, being still `underway` or not, or told of by a digest. */
export type Way = 'underway' | 'single' | 'digest';

/** What the decisions are made of. Planning a batch adds to it what the batch decides. */
export interface Known {
  readonly rules: ReadonlyMap<string, KnownRule>;
  readonly devices: ReadonlyMap<string, readonly Device[]>;
  readonly silences: ReadonlyMap<string, readonly Silence[]>;
  /** `pairKey(user, target key)` → since when (µs). */
  readonly disabled: ReadonlyMap<string, number>;
  readonly configured: ReadonlySet<ChannelName>;
  /** `pairKey(rule, entity key)` → log time of the last firing that was told of (µs). */
  readonly notified: Map<string, number>;
  /** Alert → target key → how its firing went there. */
  readonly fired: Map<string, Map<string, Way>>;
  /** User → how many notices were planned one by one in this minute. */
  readonly userCount: Map<string, number>;
  /** `pairKey(rule, target key)` → the same for one rule and target. */
  readonly ruleCount: Map<string, number>;
  /** `pairKey(user, target key)` → the digest that is being collected. */
  readonly digests: Map<string, string>;
}

export interface Minute {
  /** ISO 8601. */
  readonly begins: string;
  /** Never comes twice, whatever the clock does: no digest gets the name of one that was sent. */
  readonly turn: string;
}

/** What a batch is planned with. */
export interface Planning {
  readonly known: Known;
  readonly minute: Minute;
  readonly limits: Pick<NotifyOptions, 'perUserMinute' | 'perRuleMinute'>;
  /** A condition as text, for people. */
  readonly text: (condition: RuleCondition) => string;
  /** Told of a row that cannot be planned (written by someone else than the engine); the others go on. */
  readonly onFault: (row: OutboxRow, error: unknown) => void;
}

export function pairKey(a: string, b: string): string {
  return `${a} ${b}`;
}

/** Names an entity: the hash of its columns and values, in whatever order they come. */
export function entityKey(entity: Readonly<Record<string, unknown>>): string {
  return shortHash(
    ...Object.entries(entity)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map((pair) => JSON.stringify(pair)),
  );
}

/**
 * Decides what becomes of transitions, in their order: from the same rows and the same knowledge, the same jobs. Digests that are
 * needed are among them.
 */
export function planBatch(rows: readonly OutboxRow[], planning: Planning): readonly PlannedJob[] {
  const jobs = new Map<string, PlannedJob>();
  for (const row of rows) {
    try {
      for (const job of planRow(row, planning)) if (!jobs.has(job.job_id)) jobs.set(job.job_id, job);
    } catch (error) {
      planning.onFault(row, error);
    }
  }
  return [...jobs.values()];
}

function planRow(row: OutboxRow, planning: Planning): readonly PlannedJob[] {
  const { known } = planning;
  const rule = known.rules.get(row.rule_id);
  const targets = rule ? targetsOf(rule.channels, known.devices.get(row.user_id) ?? []) : [];
  if (row.transition === 'firing') return rule && targets.length > 0 ? planTargets(row, rule, targets, planning) : [unsent(row, rule)];
  // Who was not told that it fired need not hear that it is over.
  const went = row.alert.reason === 'rule_deleted' ? undefined : known.fired.get(row.alert_id);
  const told = targets.filter(({ key }) => went?.has(key));
  return rule ? planTargets(row, rule, told, planning) : [];
}

function planTargets(row: OutboxRow, rule: KnownRule, targets: readonly PlannedTarget[], planning: Planning): readonly PlannedJob[] {
  const { known, minute, limits, text } = planning;
  const summary = summaryOf(row, text);
  const general = suppressedFor(row, rule, known);
  const spent = (known.userCount.get(row.user_id) ?? 0) >= limits.perUserMinute;
  const jobs: PlannedJob[] = [];
  const ways = new Map<string, Way>();
  for (const target of targets) {
    const reason = general ?? suppressedAt(target, row, rule, known) ?? overLimit(target, row, planning, spent);
    const job = jobOf(row, target);
    if (reason === undefined) {
      const waits = row.transition === 'resolved' && known.fired.get(row.alert_id)?.get(target.key) === 'underway';
      const notice = noticeOf(job.job_id, row, summary);
      jobs.push({ ...job, notice, state: 'queued', reason: waits ? firingFirst : null, digest_id: null });
      add(known.ruleCount, pairKey(row.rule_id, target.key));
      ways.set(target.key, 'underway');
    } else if (reason === 'digested' || reason === 'throttled') {
      const digest = digestOf(row.user_id, target, minute, known);
      jobs.push({ ...job, notice: summary, state: 'suppressed', reason, digest_id: digest.job_id }, digest);
      ways.set(target.key, 'digest');
    } else jobs.push({ ...job, notice: null, state: 'suppressed', reason, digest_id: null });
  }
  remember(row, ways, known);
  return jobs;
}

/** What later rows are judged by. */
function remember(row: OutboxRow, ways: Map<string, Way>, known: Known): void {
  if ([...ways.values()].includes('underway')) add(known.userCount, row.user_id);
  if (row.transition !== 'firing' || ways.size === 0) return;
  known.fired.set(row.alert_id, ways);
  known.notified.set(pairKey(row.rule_id, entityKey(row.alert.entity)), microsOfText(timeOf(row)));
}

/** Why none of the targets hears of it. */
function suppressedFor(row: OutboxRow, rule: KnownRule, known: Known): Suppressed | undefined {
  const at = microsOfText(timeOf(row));
  const silences = known.silences.get(row.user_id) ?? [];
  if (silences.some((silence) => silence.from <= at && at < silence.until && covers(silence, row))) return 'silenced';
  if (row.transition !== 'firing' || rule.cooldownMicros === 0) return undefined;
  const last = known.notified.get(pairKey(row.rule_id, entityKey(row.alert.entity)));
  return last !== undefined && at - last < rule.cooldownMicros ? 'cooldown' : undefined;
}

function suppressedAt(target: PlannedTarget, row: OutboxRow, rule: KnownRule, known: Known): Suppressed | undefined {
  if (!known.configured.has(target.channel)) return 'not_configured';
  const disabledAt = known.disabled.get(pairKey(row.user_id, target.key));
  // Whoever has touched the rule since is taken to have mended it.
  return disabledAt !== undefined && disabledAt >= rule.updatedAt ? 'disabled' : undefined;
}

/** Storms are told of by digests; so is the end of what a digest told of. */
function overLimit(target: PlannedTarget, row: OutboxRow, { known, limits }: Planning, spent: boolean): Suppressed | undefined {
  if (row.transition === 'resolved' && known.fired.get(row.alert_id)?.get(target.key) === 'digest') return 'digested';
  if (spent) return 'digested';
  return (known.ruleCount.get(pairKey(row.rule_id, target.key)) ?? 0) >= limits.perRuleMinute ? 'throttled' : undefined;
}

/** Does a silence cover the rule, and every column that it names? Values are compared as text; a list holds alternatives. */
function covers({ ruleId, match }: Silence, row: OutboxRow): boolean {
  if (ruleId !== null && ruleId !== row.rule_id) return false;
  return Object.entries(match).every(([column, wanted]) => {
    const value = row.alert.entity[column];
    if (value == null) return false;
    return (Array.isArray(wanted) ? wanted : [wanted]).some((each) => asText(each) === asText(value));
  });
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

type JobHead = Omit<PlannedJob, 'notice' | 'state' | 'reason' | 'digest_id'>;

/** What a job has of its alert, whomever it is for. */
function alertOf(row: OutboxRow): Pick<PlannedJob, 'transition' | 'alert_id' | 'rule_id' | 'user_id' | 'entity_key' | 'at'> {
  return {
    transition: row.transition,
    alert_id: row.alert_id,
    rule_id: row.rule_id,
    user_id: row.user_id,
    entity_key: entityKey(row.alert.entity),
    at: timeOf(row),
  };
}

function jobOf(row: OutboxRow, target: PlannedTarget): JobHead {
  return {
    job_id: `${row.alert_id}_${row.transition}_${target.channel}_${target.key}`,
    ...alertOf(row),
    channel: target.channel,
    target_key: target.key,
    target: target.address,
    endpoint: target.endpoint,
  };
}

/** A firing that nobody can hear of is recorded all the same: people ask why nothing came. */
function unsent(row: OutboxRow, rule: KnownRule | undefined): PlannedJob {
  const push = rule?.channels.some(({ type }) => type === 'push') === true;
  return {
    job_id: `${row.alert_id}_${row.transition}_none`,
    ...alertOf(row),
    channel: 'none',
    target_key: '',
    target: {},
    endpoint: '',
    notice: null,
    state: 'suppressed',
    reason: !rule ? 'rule_gone' : push ? 'no_devices' : 'no_channels',
    digest_id: null,
  };
}

/** The digest of a user's target that is being collected, or a new one; what it says is put together when its minute is over. */
function digestOf(userId: string, target: PlannedTarget, { begins, turn }: Minute, { digests }: Known): PlannedJob {
  const pair = pairKey(userId, target.key);
  const id = digests.get(pair) ?? `digest_${begins.replace(/[^0-9]/g, '')}_${target.channel}_${shortHash(userId, target.key, turn)}`;
  digests.set(pair, id);
  return {
    job_id: id,
    transition: 'digest',
    alert_id: null,
    rule_id: null,
    user_id: userId,
    entity_key: null,
    at: begins,
    channel: target.channel,
    target_key: target.key,
    target: target.address,
    endpoint: target.endpoint,
    notice: null,
    state: 'collecting',
    reason: null,
    digest_id: null,
  };
}

function add(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

import type { Seq } from '../../pipeline/log/event-log.ts';
import type { RuleCondition } from '../../schemas/condition/condition.ts';

/** Microseconds since 1970. Log time is the running maximum of the events' `at`. */
export type Micros = number;

export type Severity = 'info' | 'warning' | 'critical';

/** A column and the texts of the values, one of which the row must have. */
export interface MatchColumn {
  readonly column: string;
  readonly values: readonly string[];
}

/** A rule in force as the log holds it: a row of `headwater.alert_rules`, checked and taken apart. Where it notifies is not in the log. */
export interface Rule {
  readonly id: string;
  readonly revision: number;
  readonly userId: string;
  readonly name: string;
  /** `<schema>.<table>` */
  readonly table: string;
  /** Empty: every row. */
  readonly match: readonly MatchColumn[];
  /** The columns whose values make an entity; undefined: the primary key. */
  readonly groupBy: readonly string[] | undefined;
  readonly when: RuleCondition;
  readonly clear: RuleCondition | undefined;
  readonly forMicros: Micros;
  readonly keepFiringForMicros: Micros;
  readonly cooldownMicros: Micros;
  readonly severity: Severity;
}

/** Why an alert was resolved: by its condition, since the rule or the entity went away, or since the log began anew. */
export type ResolveReason = 'condition' | 'rule_edited' | 'rule_disabled' | 'rule_deleted' | 'entity_deleted' | 'epoch_changed';

/** An alert, as `headwater.alert_history` keeps it but for its `event`. */
export interface Alert {
  /** UUIDv5 of rule, revision, entity and the id of the event that opened the episode. */
  readonly id: string;
  readonly ruleId: string;
  readonly revision: number;
  readonly userId: string;
  /** Column → value, as the event has it. */
  readonly entity: Readonly<Record<string, unknown>>;
  readonly severity: Severity;
  readonly state: 'firing' | 'resolved';
  /** Text of the condition's first field when the alert fired; null when it names none, or the value is unknown. */
  readonly value: string | null;
  readonly firedAt: Micros;
  readonly firedSeq: Seq;
  readonly resolvedAt?: Micros;
  readonly resolvedSeq?: Seq;
  readonly reason?: ResolveReason;
}

/**
 * An alert has fired or been resolved. `event` is the JSON text of the event at which it did: of one that fires, what
 * `alert_history` keeps as `event`. It can be a tick: then a time was up.
 */
export interface Transition {
  readonly alert: Alert;
  readonly rule: Rule;
  readonly event: string;
}

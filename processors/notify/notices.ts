import type { RuleCondition } from '../../schemas/condition/condition.ts';
import type { Notice, NoticeAlert, NoticeData } from './channel.ts';

/** A row of `headwater.alert_outbox`. */
export interface OutboxRow {
  readonly id: string;
  readonly alert_id: string;
  readonly transition: 'firing' | 'resolved';
  readonly rule_id: string;
  readonly revision: number;
  readonly user_id: string;
  /** The columns of `alert_history` as of this transition. */
  readonly alert: AlertColumns;
  readonly rule: { readonly name: string; readonly table: string; readonly condition: RuleCondition };
  readonly event: unknown;
}

export interface AlertColumns {
  readonly entity: Readonly<Record<string, unknown>>;
  readonly severity: NoticeAlert['severity'];
  readonly value: string | null;
  readonly fired_at: string;
  readonly fired_seq: number;
  readonly resolved_at?: string | null;
  readonly resolved_seq?: number | null;
  readonly reason?: string | null;
}

/** When the transition happened: log time, ISO 8601. */
export function timeOf({ transition, alert }: OutboxRow): string {
  return transition === 'resolved' ? (alert.resolved_at ?? alert.fired_at) : alert.fired_at;
}

/** What a receiver is told of a transition, without the event. */
export function summaryOf(row: OutboxRow, text: (condition: RuleCondition) => string): Omit<NoticeData, 'event'> {
  const { alert, rule } = row;
  return {
    alert: {
      id: row.alert_id,
      state: row.transition,
      entity: alert.entity,
      severity: alert.severity,
      value: alert.value,
      firedAt: alert.fired_at,
      firedSeq: alert.fired_seq,
      ...(row.transition === 'resolved' && {
        resolvedAt: timeOf(row),
        resolvedSeq: alert.resolved_seq ?? alert.fired_seq,
        ...(alert.reason != null && { reason: alert.reason }),
      }),
    },
    rule: { id: row.rule_id, revision: row.revision, name: rule.name, table: rule.table, condition: text(rule.condition) },
  };
}

/** The notice of a transition. */
export function noticeOf(id: string, row: OutboxRow, summary: Omit<NoticeData, 'event'>): Notice {
  return { id, type: `alert.${row.transition}`, timestamp: timeOf(row), data: { ...summary, event: row.event } };
}

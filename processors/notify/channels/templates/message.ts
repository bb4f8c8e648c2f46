import type { DigestData, Notice, NoticeAlert, NoticeData, NoticeRule } from '../../channel.ts';
import { oneLine } from '../one-line.ts';
import { entity, entityValues, finding, lasting, linkTo, resolvedBecause, utc, type Wording } from './wording.ts';

/** What a message says, before it is text, HTML or a push notification. All of it is plain text in single lines. */
export interface Message {
  readonly kind: 'critical' | 'warning' | 'info' | 'resolved' | 'digest';
  /** For a subject: what and where. */
  readonly subject: string;
  readonly title: string;
  /** One sentence below the title. */
  readonly lead: string;
  /** Label and text, in reading order. */
  readonly facts: readonly (readonly [label: string, text: string])[];
  readonly link: string | undefined;
  /** Of a digest: the alerts, by rule. */
  readonly groups: readonly Group[];
  /** Alerts of a digest that are not listed. */
  readonly more: number;
}

interface Group {
  readonly title: string;
  readonly counts: string;
  readonly items: readonly { readonly text: string; readonly resolved: boolean; readonly link: string | undefined }[];
}

/** Puts a notice into words. */
export function messageOfNotice(notice: Notice, wording: Wording): Message {
  if ('alerts' in notice.data) return digest(notice.data, wording);
  return notice.data.alert.state === 'resolved' ? resolved(notice.data, wording) : firing(notice.data, wording);
}

function firing({ alert, rule }: NoticeData, wording: Wording): Message {
  const title = name(rule);
  const found = finding(alert, rule, wording.locale);
  const condition = oneLine(rule.condition, 500);
  return {
    kind: alert.severity,
    subject: `[${alert.severity}] ${about(title, alert)}`,
    title,
    lead: found ?? condition,
    facts: facts([
      ['Where', entity(alert)],
      ['Since', utc(alert.firedAt)],
      ['Condition', condition],
      ['Table', oneLine(rule.table, 130)],
      ['Severity', alert.severity],
    ]),
    link: linkTo(alert, rule, wording),
    groups: [],
    more: 0,
  };
}

/** Short: it only says that something is over. */
function resolved({ alert, rule }: NoticeData, wording: Wording): Message {
  const title = name(rule);
  const because = resolvedBecause(alert);
  const end = alert.resolvedAt ?? alert.firedAt;
  return {
    kind: 'resolved',
    subject: `Resolved: ${about(title, alert)}`,
    title,
    lead: `Resolved after ${lasting(alert.firedAt, end)}${because === undefined ? '' : `: ${because}`}`,
    facts: facts([
      ['Where', entity(alert)],
      ['From', utc(alert.firedAt)],
      ['Until', utc(end)],
    ]),
    link: linkTo(alert, rule, wording),
    groups: [],
    more: 0,
  };
}

function digest(data: DigestData, wording: Wording): Message {
  const counts = counted(data.firing, data.resolved);
  const rules = new Map<string, { rule: NoticeRule; alerts: NoticeAlert[] }>();
  for (const { alert, rule } of data.alerts) {
    const found = rules.get(rule.id);
    if (found) found.alerts.push(alert);
    else rules.set(rule.id, { rule, alerts: [alert] });
  }
  const groups = [...rules.values()].map(({ rule, alerts }) => group(rule, alerts, wording));
  return {
    kind: 'digest',
    subject: `Alerts: ${counts}`,
    title: `Alerts: ${counts}`,
    lead: 'More happened at once than is sent one by one',
    facts: [],
    link: undefined,
    groups,
    more: Math.max(0, data.firing + data.resolved - data.alerts.length),
  };
}

function group(rule: NoticeRule, alerts: readonly NoticeAlert[], wording: Wording): Group {
  const over = alerts.filter(({ state }) => state === 'resolved').length;
  return {
    title: name(rule),
    counts: counted(alerts.length - over, over),
    items: alerts.map((alert) => {
      const isOver = alert.state === 'resolved';
      const what = isOver ? 'resolved' : (finding(alert, rule, wording.locale) ?? 'firing');
      const since = utc(isOver ? (alert.resolvedAt ?? alert.firedAt) : alert.firedAt);
      const where = entity(alert);
      return { text: `${where === '' ? '' : `${where}: `}${what} (${since})`, resolved: isOver, link: linkTo(alert, rule, wording) };
    }),
  };
}

function counted(firingCount: number, resolvedCount: number): string {
  const parts = [firingCount > 0 ? `${firingCount} firing` : '', resolvedCount > 0 ? `${resolvedCount} resolved` : ''];
  return parts.filter(Boolean).join(', ') || 'none';
}

function name(rule: NoticeRule): string {
  return oneLine(rule.name, 120) || 'Alert';
}

function about(title: string, alert: NoticeAlert): string {
  const values = entityValues(alert);
  return values === '' ? title : `${title}: ${values}`;
}

function facts(all: readonly (readonly [string, string])[]): readonly (readonly [string, string])[] {
  return all.filter(([, text]) => text !== '');
}

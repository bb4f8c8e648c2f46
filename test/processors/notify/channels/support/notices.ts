import type { Notice, NoticeAlert, NoticeRule } from '../../../../../processors/notify/channel.ts';

export const alert: NoticeAlert = {
  id: '0b9a3c1e-5d0e-5f6a-9d53-1c2f3a4b5c6d',
  state: 'firing',
  entity: { token_id: 'weth', chain: 'Base' },
  severity: 'warning',
  value: '1234567.10',
  firedAt: '2026-11-22T20:35:29.123456Z',
  firedSeq: 4711,
};

export const rule: NoticeRule = {
  id: '3f2b8a9c-1111-4222-8333-444455556666',
  revision: 2,
  name: 'Ether is dear',
  table: 'public.prices',
  condition: 'price > 1000000',
};

export function firing(changes: { alert?: Partial<NoticeAlert>; rule?: Partial<NoticeRule>; id?: string } = {}): Notice {
  return {
    id: changes.id ?? 'ntf_2b1f',
    type: 'alert.firing',
    timestamp: alert.firedAt,
    data: { alert: { ...alert, ...changes.alert }, rule: { ...rule, ...changes.rule }, event: { after: { price: '1234567.10' } } },
  };
}

export function resolved(changes: { alert?: Partial<NoticeAlert>; rule?: Partial<NoticeRule>; id?: string } = {}): Notice {
  const over = { state: 'resolved', resolvedAt: '2026-11-22T21:40:30.5Z', resolvedSeq: 4800, reason: 'condition' } as const;
  const notice = firing({ ...changes, id: changes.id ?? 'ntf_2b20', alert: { ...over, ...changes.alert } });
  return { ...notice, type: 'alert.resolved', timestamp: over.resolvedAt };
}

/** The first 20 of `count` alerts of two rules, every third of them resolved. */
export function digest(count: number): Notice {
  const all = Array.from({ length: count }, (_, i) => ({
    alert: {
      ...(i % 3 === 2 ? { ...alert, state: 'resolved' as const, resolvedAt: '2026-11-22T20:36:00Z' } : alert),
      id: `alert-${i}`,
      entity: { token_id: `token-${i}` },
    },
    rule: i % 2 === 0 ? rule : { ...rule, id: 'rule-2', name: 'Another rule', condition: 'volume < 5 AND chain = "Base"' },
  }));
  const over = all.filter((each) => each.alert.state === 'resolved').length;
  return {
    id: 'dig_1',
    type: 'alert.digest',
    timestamp: '2026-11-22T20:37:00Z',
    data: { firing: count - over, resolved: over, alerts: all.slice(0, 20) },
  };
}

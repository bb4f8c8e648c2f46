import { expect } from 'chai';
import fc from 'fast-check';
import type { OutboxRow } from '../../../processors/notify/notices.ts';
import { pairKey, planBatch, type Known, type KnownRule, type PlannedJob, type Planning } from '../../../processors/notify/plan.ts';
import { targetsOf, type StoredChannel } from '../../../processors/notify/targets.ts';
import { logTime } from './support/notify-world.ts';

const hook: StoredChannel = { type: 'webhook', url: 'https://example.com/hook' };
const mail: StoredChannel = { type: 'email', to: 'a@example.com' };

function knownOf(rules: Record<string, Partial<KnownRule>>, more: Partial<Known> = {}): Known {
  const all = Object.entries(rules).map(([id, rule]): [string, KnownRule] => [
    id,
    { channels: [hook], cooldownMicros: 0, updatedAt: 0, ...rule },
  ]);
  return {
    rules: new Map(all),
    devices: new Map(),
    silences: new Map(),
    disabled: new Map(),
    configured: new Set(['webhook', 'email', 'push']),
    notified: new Map(),
    fired: new Map(),
    userCount: new Map(),
    ruleCount: new Map(),
    digests: new Map(),
    ...more,
  };
}

function planningOf(
  known: Known,
  limits = { perUserMinute: 20, perRuleMinute: 10 },
): Planning & { faults: unknown[]; minute: Planning['minute'] } {
  const faults: unknown[] = [];
  return {
    known,
    minute: { begins: '2026-01-01T00:05:00.000Z', turn: '1' },
    limits,
    text: () => 'price > 50',
    onFault: (fault) => faults.push(fault),
    faults,
  };
}

let made = 0;
function row(rule: string, more: Partial<OutboxRow> = {}): OutboxRow {
  const alert = { entity: { id: 1 }, severity: 'info' as const, value: null, fired_at: logTime(0), fired_seq: 1 };
  return {
    id: '1',
    alert_id: `00000000-0000-0000-0000-${String(++made).padStart(12, '0')}`,
    transition: 'firing',
    rule_id: rule,
    revision: 1,
    user_id: 'u1',
    alert,
    rule: { name: 'r', table: 'public.t', condition: { field: 'price', op: 'gt', value: 50 } },
    event: {},
    ...more,
  };
}

function resolvedOf(fired: OutboxRow, reason = 'condition'): OutboxRow {
  return { ...fired, transition: 'resolved', alert: { ...fired.alert, resolved_at: logTime(9), resolved_seq: 2, reason } };
}

const states = (jobs: readonly PlannedJob[]): string[] => jobs.map(({ channel, state, reason }) => `${channel} ${reason ?? state}`);

describe('notify planning', () => {
  it('makes one job for each target, whose id says of what it is', () => {
    const devices = new Map([
      [
        'u1',
        [
          { id: 'd1', endpoint: 'https://push.example/1' },
          { id: 'd2', endpoint: 'https://push.example/2' },
        ],
      ],
    ]);
    const known = knownOf({ r: { channels: [hook, mail, hook, { type: 'push' }, { type: 'pigeon' }] } }, { devices });
    const fired = row('r');
    const jobs = planBatch([fired], planningOf(known));
    expect(states(jobs)).to.deep.equal(['webhook queued', 'email queued', 'push queued', 'push queued']);
    expect(new Set(jobs.map(({ job_id }) => job_id)).size).to.equal(4);
    for (const { job_id, channel } of jobs) expect(job_id).to.match(new RegExp(`^${fired.alert_id}_firing_${channel}_[A-Za-z0-9_-]{16}$`));
    expect(jobs.map(({ endpoint }) => endpoint).slice(0, 3)).to.deep.equal([
      'webhook https://example.com',
      'email smtp',
      'push https://push.example',
    ]);
  });

  it('says why nobody hears of an alert', () => {
    const known = knownOf(
      { none: { channels: [] }, push: { channels: [{ type: 'push' }] }, mail: { channels: [mail] } },
      { configured: new Set(['webhook'] as const) },
    );
    const jobs = planBatch([row('gone'), row('none'), row('push'), row('mail')], planningOf(known));
    expect(states(jobs)).to.deep.equal(['none rule_gone', 'none no_channels', 'none no_devices', 'email not_configured']);
  });

  it('sends nothing more to a target that is gone, unless the rule was touched since', () => {
    const [target] = targetsOf([hook], []);
    const known = knownOf({ old: { updatedAt: 5 }, touched: { updatedAt: 7 } }, { disabled: new Map([[pairKey('u1', target!.key), 6]]) });
    expect(states(planBatch([row('old'), row('touched')], planningOf(known)))).to.deep.equal(['webhook disabled', 'webhook queued']);
  });

  it('spares a target more than ten notices of one rule in a minute, but tells of them in a digest', () => {
    const jobs = planBatch(
      Array.from({ length: 12 }, (_, id) => row('r', { alert: { ...row('r').alert, entity: { id } } })),
      planningOf(knownOf({ r: { channels: [hook, mail] } }), { perUserMinute: 100, perRuleMinute: 10 }),
    );
    expect(jobs.filter(({ state }) => state === 'queued').length).to.equal(20);
    expect(jobs.filter(({ reason }) => reason === 'throttled').length).to.equal(4);
    const digests = jobs.filter(({ state }) => state === 'collecting');
    expect(digests.map(({ channel }) => channel)).to.deep.equal(['webhook', 'email']);
    expect(new Set(jobs.map(({ digest_id }) => digest_id))).to.deep.equal(new Set([null, ...digests.map(({ job_id }) => job_id)]));
  });

  it('tells of the end where it told of the beginning, and in the same way', () => {
    const planning = planningOf(knownOf({ r: {}, many: { channels: [mail] } }), { perUserMinute: 1, perRuleMinute: 10 });
    const [single, digested, deleted] = [row('r'), row('many'), row('r')];
    planBatch([single, digested, deleted], planning);
    planning.known.userCount.clear();
    planning.known.fired.get(single.alert_id)!.set(targetsOf([hook], [])[0]!.key, 'single');
    const rows = [resolvedOf(single), resolvedOf(digested), resolvedOf(deleted, 'rule_deleted'), resolvedOf(row('r'))];
    const jobs = planBatch(rows, planning);
    expect(states(jobs)).to.deep.equal(['webhook queued', 'email digested', 'email collecting']);
  });

  it('lets the end of an alert wait where its beginning is still under way', () => {
    const planning = planningOf(knownOf({ r: { channels: [hook, mail] } }));
    const fired = row('r');
    planBatch([fired], planning);
    planning.known.fired.get(fired.alert_id)!.set(targetsOf([mail], [])[0]!.key, 'single');
    expect(states(planBatch([resolvedOf(fired)], planning))).to.deep.equal(['webhook firing_first', 'email queued']);
  });

  it('adds to the digest that is being collected, and never to one of before, even when the clock goes back', () => {
    const planning = planningOf(knownOf({ r: {} }), { perUserMinute: 0, perRuleMinute: 10 });
    const digestId = (): string => planBatch([row('r')], planning)[0]!.digest_id!;
    const first = digestId();
    planning.minute = { begins: '2026-01-01T00:06:00.000Z', turn: '2' };
    expect(digestId()).to.equal(first);
    planning.known.digests.clear();
    planning.minute = { begins: '2026-01-01T00:05:00.000Z', turn: '3' };
    expect(digestId()).not.to.equal(first);
  });

  it('leaves out a row that makes no sense, and goes on', () => {
    const planning = planningOf(knownOf({ r: { cooldownMicros: 1 } }));
    const bad = row('r', { alert: { ...row('r').alert, fired_at: 'yesterday' } });
    expect(states(planBatch([bad, row('r')], planning))).to.deep.equal(['webhook queued']);
    expect(planning.faults).to.deep.equal([bad]);
  });

  it('keeps its promises whatever comes, however it is cut into batches', () => {
    const change = fc.record({
      rule: fc.constantFrom('a', 'b', 'c'),
      id: fc.integer({ min: 0, max: 3 }),
      at: fc.nat(100),
      user: fc.constantFrom('u1', 'u2'),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 }), (changes, sizes) => {
        const rules = { a: { cooldownMicros: 5_000_000 }, b: { channels: [hook, mail] }, c: { channels: [mail] } };
        const rows = changes.map(({ rule, id, at, user }) =>
          row(rule, { user_id: user, alert: { ...row(rule).alert, entity: { id }, fired_at: logTime(at) } }),
        );
        const limits = { perUserMinute: 5, perRuleMinute: 3 };
        const whole = planBatch(rows, planningOf(knownOf(rules), limits));
        const known = knownOf(rules);
        const jobs = new Map<string, PlannedJob>();
        for (let at = 0, i = 0; at < rows.length; at += sizes[i++ % sizes.length]!)
          for (const job of planBatch(rows.slice(at, at + sizes[i % sizes.length]!), planningOf(known, limits))) jobs.set(job.job_id, job);
        expect([...jobs.values()]).to.deep.equal(whole);
        for (const user of ['u1', 'u2']) {
          const single = whole.filter(({ state, user_id }) => state === 'queued' && user_id === user);
          expect(new Set(single.map(({ alert_id }) => alert_id)).size).to.be.at.most(5);
        }
        const digests = new Set(whole.filter(({ state }) => state === 'collecting').map(({ job_id }) => job_id));
        expect(new Set(whole.flatMap(({ digest_id }) => digest_id ?? []))).to.deep.equal(digests);
        const perAlert = rows.map(({ alert_id }) => whole.filter((job) => job.alert_id === alert_id).length);
        expect(perAlert).to.deep.equal(rows.map(({ rule_id }) => (rule_id === 'b' ? 2 : 1)));
      }),
    );
  });
});

import { expect } from 'chai';
import fc from 'fast-check';
import { parseClientFrame } from '../../gateway/client-frames.ts';
import { openSession, step } from '../../gateway/session.ts';
import type { Input, Output, SessionState } from '../../gateway/session-state.ts';

const limits = { connections: 9, subscriptions: 3, filterValues: 9, commandsPerSecond: 9, commandsBurst: 9, frameBytes: 9 };
const ann = { keyId: 'k1', owner: 'ann', scopes: ['read'], expiresAt: undefined as number | undefined };
const frame = (body: object | string): Input => ({
  type: 'frame',
  frame: parseClientFrame(typeof body === 'string' ? body : JSON.stringify(body)),
});
const connect = frame({ type: 'connect', id: 7, auth: { apiKey: 'x' } });
const admitted = (principal: typeof ann = ann): Input => ({ type: 'admitted', principal, limits, epoch: 'e', head: 10 });
const subscribe = (sub: string, more: object = {}): Input => frame({ type: 'subscribe', id: `s-${sub}`, sub, channel: 'prices', ...more });
const positioned = (ref: number, start: number): Input => ({
  type: 'positioned',
  ref,
  start,
  oldest: 1,
  head: 10,
  snapshotAsOf: undefined,
});
const replayed = (ref: number, seqs: number[], through: number): Input => ({
  type: 'replayed',
  ref,
  events: seqs.map((seq) => ({ seq, bytes: new Uint8Array() })),
  through,
});
const states = (ref: number, seqs: number[], through: number): Input => ({
  type: 'states',
  ref,
  items: seqs.map((seq) => ({ seq, event: new Uint8Array() })),
  through,
});

function run(...inputs: Input[]): { state: SessionState; out: Output[]; last: readonly Output[] } {
  let state = openSession('c', 0);
  const out: Output[] = [];
  let last: readonly Output[] = [];
  for (const input of inputs) {
    ({ state, out: last } = step(state, input));
    out.push(...last);
  }
  return { state, out, last };
}

/** Short names of outputs: `error:bad_request`, `caught_up`, `join`. */
function names(out: readonly Output[]): string[] {
  return out.map((output) =>
    output.type !== 'send' ? output.type : output.frame.type === 'error' ? `error:${output.frame.code}` : output.frame.type,
  );
}

describe('session', () => {
  it('1: before connected, only connect is accepted', () => {
    expect(names(run(subscribe('a')).out)).to.deep.equal(['error:bad_request', 'close']);
    expect(names(run(frame('{')).out)).to.deep.equal(['error:bad_request', 'close']);
    expect(names(run(connect).out)).to.deep.equal(['authenticate']);
    expect(names(run(connect, { type: 'refused', code: 'unauthorized', message: '' }).out)).to.deep.equal([
      'authenticate',
      'error:unauthorized',
      'close',
    ]);
    expect(run(connect, admitted()).last[0]).to.deep.include({ type: 'send' }).and.to.have.nested.property('frame.id', 7);
  });

  it('2: commands before the answer to connect wait for it', () => {
    const { out } = run(connect, frame({ type: 'ping', id: 1 }), subscribe('a'), admitted());
    expect(names(out)).to.deep.equal(['authenticate', 'connected', 'pong', 'begin']);
    const flood = run(connect, ...Array.from({ length: 40 }, () => frame({ type: 'ping' })));
    expect(names(flood.out)).to.deep.equal(['authenticate', 'error:bad_request', 'close']);
  });

  it('3: after close there is no output', () => {
    const { out } = run(
      connect,
      admitted(),
      { type: 'end', reason: 'restart', message: '' },
      subscribe('a'),
      admitted(),
      { type: 'tick', now: 1e9 },
      { type: 'gone' },
    );
    expect(names(out).slice(-2)).to.deep.equal(['error:restart', 'close']);
  });

  it('4: a close comes with its error and leaves everything', () => {
    const { last } = run(connect, admitted(), subscribe('a'), subscribe('b'), { type: 'end', reason: 'slow_consumer', message: '' });
    expect(names(last)).to.deep.equal(['leave', 'leave', 'error:slow_consumer', 'close']);
  });

  it('5: one subscribed, one caught_up, and the join directly after it', () => {
    const caughtUp: Input = { type: 'caughtUp', ref: 1, seq: 9 };
    const { out } = run(
      connect,
      admitted(),
      subscribe('a'),
      caughtUp,
      positioned(1, 5),
      positioned(1, 5),
      caughtUp,
      replayed(1, [6], 9),
      caughtUp,
      caughtUp,
      replayed(1, [10], 10),
    );
    expect(names(out)).to.deep.equal(['authenticate', 'connected', 'begin', 'subscribed', 'sendEvents', 'caught_up', 'join']);
  });

  it('6: nothing of a subscription after its unsubscribed', () => {
    const { out } = run(
      connect,
      admitted(),
      subscribe('a'),
      positioned(1, 5),
      frame({ type: 'unsubscribe', id: 3, sub: 'a' }),
      replayed(1, [5], 5),
      { type: 'caughtUp', ref: 1, seq: 5 },
      { type: 'tick', now: 1 },
    );
    expect(names(out).slice(-2)).to.deep.equal(['leave', 'unsubscribed']);
  });

  it('10: a malformed frame after connected is answered, and changes nothing', () => {
    for (const text of [
      '{',
      'null',
      '[]',
      '7',
      '{"type":"nope","id":1}',
      '{}',
      '{"type":"subscribe"}',
      '['.repeat(30_000),
      '{"__proto__":{"type":"ping"}}',
      '{"type":"ping","id":1e999}',
      '{"type":"subscribe","sub":"a","channel":"prices","from":{"seq":1,"time":"x"}}',
    ]) {
      const before = run(connect, admitted());
      const { state, out } = step(before.state, frame(text));
      expect(names(out), text.slice(0, 40)).to.deep.equal(['error:bad_request']);
      expect(state).to.deep.equal(before.state);
    }
  });

  it('11: a subscription that may not be is refused', () => {
    const narrow = { ...ann, scopes: ['read:tvl'] };
    expect(names(run(connect, admitted(narrow), subscribe('a')).last)).to.deep.equal(['error:forbidden']);
    expect(names(run(connect, admitted(), subscribe('a'), subscribe('a')).last)).to.deep.equal(['error:bad_request']);
    expect(names(run(connect, admitted(), ...['a', 'b', 'c', 'd'].map((sub) => subscribe(sub))).last)).to.deep.equal([
      'error:rate_limited',
    ]);
    expect(names(run(connect, admitted(), subscribe('a', { mode: 'latest' })).last)).to.deep.equal(['error:bad_request']);
  });

  it('12: alerts are the owner’s own', () => {
    const request = (principal: typeof ann): unknown => {
      const begin = run(connect, admitted(principal), subscribe('a', { channel: 'alerts', filter: { userId: 'eve', types: ['alert'] } }))
        .last[0];
      return begin?.type === 'begin' ? begin.request.filter : undefined;
    };
    expect(request({ ...ann, scopes: ['alerts'] })).to.deep.equal({ userId: 'ann', types: ['alert'] });
    expect(request({ ...ann, scopes: ['read', 'admin'] })).to.deep.equal({ userId: 'eve', types: ['alert'] });
  });

  it('13: another key ends what it may not read, a refused one changes nothing', () => {
    const auth = frame({ type: 'auth', id: 5, auth: { apiKey: 'y' } });
    const live = [connect, admitted(), subscribe('a'), positioned(1, 5), replayed(1, [], 5), { type: 'caughtUp', ref: 1, seq: 5 } as const];
    const before = run(...live);
    expect(names(run(...live, auth, admitted({ ...ann, scopes: ['read:tvl'] })).last)).to.deep.equal([
      'connected',
      'leave',
      'unsubscribed',
    ]);
    const refused = run(...live, auth, { type: 'refused', code: 'unauthorized', message: '' });
    expect(names(refused.last)).to.deep.equal(['error:unauthorized']);
    expect(refused.state).to.deep.equal(before.state);
    expect(names(run(...live, admitted({ ...ann, owner: 'eve' })).last)).to.deep.equal([]);
    const alerts = (first: typeof ann, then: typeof ann): string[] =>
      names(run(connect, admitted(first), subscribe('a', { channel: 'alerts' }), auth, admitted(then)).last);
    const admin = { ...ann, scopes: ['admin', 'read'] };
    const own = { ...ann, scopes: ['alerts'] };
    const ended = ['connected', 'leave', 'unsubscribed'];
    expect(alerts(admin, own), 'its filter was never bound to the owner').to.deep.equal(ended);
    expect(alerts(own, { ...own, owner: 'eve' })).to.deep.equal(ended);
    expect(alerts(own, { ...own, keyId: 'k2' })).to.deep.equal(['connected']);
    expect(alerts(own, admin)).to.deep.equal(['connected']);
  });

  it('14: time runs out', () => {
    expect(names(run({ type: 'tick', now: 4_999 }).out)).to.deep.equal([]);
    expect(names(run({ type: 'tick', now: 5_000 }).out)).to.deep.equal(['error:connect_timeout', 'close']);
    const expiring = { ...ann, expiresAt: 100_000 };
    const tick = (now: number): Input => ({ type: 'tick', now });
    expect(names(run(connect, admitted(expiring), tick(60_000), tick(75_000), tick(76_000), tick(100_000)).out).slice(2)).to.deep.equal([
      'auth_expiring',
      'error:auth_expired',
      'close',
    ]);
  });

  it('7: states of a feed may share a sequence, and none is left out', () => {
    const { last } = run(connect, admitted(), subscribe('a'), positioned(1, 5), states(1, [4, 4, 9, 6, 99], 7));
    const [sent] = last;
    expect(sent?.type === 'sendEvents' && sent.events.map(({ seq }) => seq)).to.deep.equal([4, 4, 7, 7, 7]);
  });

  for (const kind of ['events', 'states'] as const)
    it(`3 to 9 and 15 hold for any sequence of inputs, with ${kind}`, () => {
      const ref = fc.integer({ min: 1, max: 5 });
      const seq = fc.integer({ min: 1, max: 12 });
      const name = fc.constantFrom('a', 'b', 'c', 'd');
      const input: fc.Arbitrary<Input> = fc.oneof(
        { weight: 3, arbitrary: name.map((sub) => subscribe(sub)) },
        { weight: 1, arbitrary: name.map((sub) => frame({ type: 'unsubscribe', sub })) },
        {
          weight: 3,
          arbitrary: fc.record({ ref, start: seq, asOf: fc.option(seq, { nil: undefined }) }).map(({ ref: r, start, asOf }): Input => ({
            ...(positioned(r, start) as Extract<Input, { type: 'positioned' }>),
            snapshotAsOf: asOf,
          })),
        },
        { weight: 2, arbitrary: fc.record({ ref, more: fc.boolean() }).map((page): Input => ({ type: 'page', items: [], ...page })) },
        {
          weight: 5,
          arbitrary: fc
            .record({ ref, seqs: fc.array(seq, { maxLength: 4 }), through: seq })
            .map(({ ref: r, seqs, through }) => (kind === 'events' ? replayed : states)(r, seqs, through)),
        },
        { weight: 4, arbitrary: fc.record({ ref, seq }).map((progress): Input => ({ type: 'caughtUp', ...progress })) },
        { weight: 1, arbitrary: ref.map((r): Input => ({ type: 'failed', ref: r, fault: { code: 'resume_expired', message: '' } })) },
        { weight: 2, arbitrary: seq.map((to): Input => ({ type: 'liveCursor', seq: to })) },
        { weight: 2, arbitrary: fc.constant<Input>({ type: 'tick', now: 1 }) },
        {
          weight: 1,
          arbitrary: fc.constantFrom<Input>(admitted(), frame({ type: 'auth', auth: { apiKey: 'y' } }), frame('{'), {
            type: 'refused',
            code: 'overload',
            message: '',
          }),
        },
        { weight: 1, arbitrary: fc.constantFrom<Input>({ type: 'gone' }, { type: 'end', reason: 'heartbeat', message: '' }) },
      );
      fc.assert(
        fc.property(fc.array(input, { maxLength: 60 }), (inputs) =>
          checkOutputs(run(connect, admitted(), ...inputs).out, kind === 'events'),
        ),
        { numRuns: 3_000 },
      );
    });
});

/** What a client can hold the session to. @param strict no two frames of a replay have the same sequence */
function checkOutputs(out: readonly Output[], strict: boolean): void {
  const open = new Map<string, { last: number; told: number; caughtUp: boolean }>();
  const running = new Set<number>();
  let closed = false;
  let liveTold = 0;
  out.forEach((output, i) => {
    expect(closed, 'output after close').to.equal(false);
    const next = out[i + 1];
    if (output.type === 'begin') running.add(output.ref);
    else if (output.type === 'join') expect(running.has(output.ref)).to.equal(true);
    else if (output.type === 'leave') expect(running.delete(output.ref), 'leave without begin').to.equal(true);
    else if (output.type === 'close') {
      closed = true;
      expect(running.size, 'left behind').to.equal(0);
      const before = out[i - 1];
      expect(before?.type === 'send' && before.frame.type === 'error' && before.frame.code).to.equal(output.reason);
    } else if (output.type === 'sendEvents') {
      const sub = open.get(output.sub)!;
      expect(sub.caughtUp).to.equal(false);
      for (const event of output.events) {
        expect(event.seq, 'order').to.be.at.least(Math.max(sub.last, sub.told) + (strict ? 1 : 0));
        sub.last = event.seq;
      }
    } else if (output.type === 'sendRows') expect(open.get(output.sub)?.caughtUp).to.equal(false);
    else if (output.type === 'send') {
      const { frame: sent } = output;
      if (sent.type === 'subscribed') {
        expect(open.has(sent.sub)).to.equal(false);
        open.set(sent.sub, { last: sent.start - 1, told: sent.start - 1, caughtUp: false });
      } else if (sent.type === 'unsubscribed') open.delete(sent.sub);
      else if (sent.type === 'caught_up') {
        const sub = open.get(sent.sub)!;
        expect(sub.caughtUp).to.equal(false);
        expect(sent.seq).to.be.at.least(Math.max(sub.last, sub.told));
        sub.caughtUp = true;
        expect(next?.type).to.equal('join');
        liveTold = Math.max(liveTold, sent.seq);
      } else if (sent.type === 'cursor' && sent.sub !== undefined) {
        const sub = open.get(sent.sub)!;
        expect(sub.caughtUp).to.equal(false);
        expect(sent.seq).to.be.greaterThan(sub.told);
        sub.told = sent.seq;
      } else if (sent.type === 'cursor') {
        expect([...open.values()].some(({ caughtUp }) => caughtUp)).to.equal(true);
        expect(sent.seq).to.be.greaterThan(liveTold);
        liveTold = sent.seq;
      }
    }
  });
}

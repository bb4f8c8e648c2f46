import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { connectNats, jetstreamManager, type JetStreamManager, type NatsConnection } from '../../pipeline/clients/nats.ts';
import type { LogEvent, NewEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import type { DeadLetter, RedriveResult } from '../../pipeline/runner/dead-letters.ts';
import { idOf } from '../../pipeline/runner/event-head.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import type { Processor, RedriveRules } from '../../pipeline/runner/processor.ts';
import { DeadLetterDesk, type ListedLetter, type MadeRequest } from '../../pipeline/runner/redrive/desk.ts';
import { JetStreamRedrives } from '../../pipeline/runner/redrive/requests.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { Role, RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { FaultyLog } from '../support/faulty-log.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';
import { runTestProgram, type TestProgram } from '../support/programs.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent, tickEvent } from '../support/row-events.ts';
import { freshStreamName, testServers } from '../support/servers.ts';
import { tcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const signal = new AbortController().signal;

describe('redriving', function () {
  this.timeout(60_000);
  let natsUrl: string;
  let connection: NatsConnection;
  let jsm: JetStreamManager;
  let name: string;
  let desk: DeadLetterDesk;
  before(async () => {
    ({ natsUrl } = await testServers());
    connection = await connectNats(natsUrl, 'test', silentLogger());
    jsm = await jetstreamManager(connection);
  });
  after(() => connection.close());
  beforeEach(async () => {
    name = freshStreamName();
    desk = await DeadLetterDesk.open(connection, { stream: `${name}DL`, subject: `${name}DL` });
  });
  afterEach(() => jsm.streams.delete(`${name}DL`).catch(() => undefined));

  async function listed(processor?: string): Promise<ListedLetter[]> {
    const letters: ListedLetter[] = [];
    for await (const letter of desk.list(processor, signal)) letters.push(letter);
    return letters;
  }

  /** Asks for all letters of a processor and waits for the answers. */
  async function redriveAll(processor: string, meanwhile: () => void = () => undefined): Promise<Omit<RedriveResult, 'letter'>[]> {
    const letters = await listed(processor);
    const requests = await desk.request(
      processor,
      letters.map(({ place, event }) => ({ place, bytes: event?.length ?? 0 })),
    );
    const results: Omit<RedriveResult, 'letter'>[] = [];
    const timer = setInterval(meanwhile, 100);
    try {
      for await (const record of desk.results(requests, AbortSignal.timeout(20_000))) results.push(...record.results);
    } finally {
      clearInterval(timer);
    }
    return results;
  }

  describe('in a runner', () => {
    let log: FaultyLog;
    let store: MemoryStateStore<string>;
    let context: RoleContext;
    let poison: (id: number) => boolean;
    const roles: Role[] = [];
    beforeEach(() => {
      log = new FaultyLog();
      store = new MemoryStateStore<string>();
      context = roleContext();
      poison = () => true;
    });
    afterEach(async () => {
      await Promise.all(roles.splice(0).map((role) => role.stop()));
    });

    const insert = (id: number, n = 0): NewEvent => rowEvent(id, 'insert', { key: { id }, after: { id, n } });
    const tick = (): void => log.add(tickEvent(log.head + 1));

    async function start(redrive?: RedriveRules): Promise<Role> {
      const processor: Processor<string[]> = {
        name: 'recorder',
        ...(redrive && { redrive }),
        begin: () => [],
        apply({ seq, subject, data }: LogEvent, effects) {
          if (subject.endsWith('_tick')) return;
          const { key, after } = JSON.parse(Buffer.from(data).toString()) as { key: { id: number }; after?: { n: number } };
          if (poison(key.id) && after?.n === 0) throw new RangeError(`no room for ${key.id}`);
          effects.push(`${seq}:${key.id}:${subject.split('.').at(-1)}`);
        },
      };
      const deadLetters = await JetStreamDeadLetters.open(connection, { stream: `${name}DL`, subject: `${name}DL` });
      const role = startRunner(context, { eventLog: log, processor, store, deadLetters, leaseMs: 300 });
      roles.push(role);
      return role;
    }
    const settled = (): Promise<void> => until(() => store.stored?.seq === log.head);

    it('applies an event once, after the processor was corrected; before that it fails again and says so', async () => {
      log.add(insert(1), insert(2, 1), insert(3));
      poison = (id) => id !== 2;
      const faulty = await start();
      await settled();
      const first = await listed();
      expect(
        first.map(({ processor, seq, code, reason, attempts, subject, epoch }) => ({
          processor,
          seq,
          code,
          reason,
          attempts,
          subject,
          epoch,
        })),
      ).to.deep.equal(
        [1, 3].map((seq) => ({
          processor: 'recorder',
          seq,
          code: 'processor_error',
          reason: `no room for ${seq}`,
          attempts: 3,
          subject: 'ev.public.prices.insert',
          epoch: 'epoch-1',
        })),
      );
      expect(first[0]!.stack).to.include('redrive.test');
      expect([...store.missing]).to.deep.equal([1, 3]);

      expect(await redriveAll('recorder', tick)).to.deep.equal(
        [1, 3].map((seq, n) => ({ place: n + 1, outcome: 'failed', seq, reason: `no room for ${seq}` })),
      );
      const second = await listed();
      expect(second.map(({ seq, attempts, firstAt }) => ({ seq, attempts, firstAt }))).to.deep.equal(
        first.map(({ seq, at }) => ({ seq, attempts: 6, firstAt: at })),
      );
      expect(Buffer.compare(Buffer.from(second[0]!.event!), Buffer.from(insert(1).data))).to.equal(0);
      await faulty.stop();

      poison = () => false;
      await start();
      expect((await redriveAll('recorder', tick)).map(({ outcome }) => outcome)).to.deep.equal(['applied', 'applied']);
      expect(store.state).to.deep.equal(['2:2:insert', '1:1:insert', '3:3:insert']);
      await until(async () => (await listed()).length === 0);
      expect([...store.missing]).to.deep.equal([]);
      await until(async () => /headwater_dead_letters\{processor="recorder"\} 0/.test(await context.metrics.metrics()));
      const text = await context.metrics.metrics();
      expect(text)
        .to.match(/redriven_total\{processor="recorder",outcome="applied"\} 2/)
        .and.match(/outcome="failed"\} 2/);
    });

    it('applies nothing over what is newer, and each event by itself where the processor counts events', async () => {
      log.add(
        insert(1),
        insert(2),
        insert(3),
        rowEvent(4, 'update', { key: { id: 1 }, after: { id: 1, n: 1 } }),
        rowEvent(5, 'delete', { key: { id: 2 } }),
      );
      await start();
      await settled();
      store.state = [];
      poison = () => false;
      expect((await redriveAll('recorder', tick)).map(({ outcome, seq }) => `${seq} ${outcome}`).sort()).to.deep.equal([
        '1 superseded',
        '2 superseded',
        '3 applied',
      ]);
      expect(store.state).to.deep.equal(['3:3:insert']);
      await Promise.all(roles.splice(0).map((role) => role.stop()));

      [store, poison] = [new MemoryStateStore<string>(), () => true];
      await start({ of: 'events', under: 'tick' });
      await settled();
      store.state = [];
      poison = () => false;
      expect((await redriveAll('recorder', tick)).map(({ outcome }) => outcome)).to.deep.equal(['applied', 'applied', 'applied']);
      // Under the sequence of a tick, which nothing else is.
      const seqs = new Set(store.state.map((effect) => Number(effect.split(':')[0])));
      expect(store.state).to.have.length(3);
      expect([seqs.size, [...seqs][0]! > 5]).to.deep.equal([1, true]);
    });

    it('applies nothing that the state has: it was made anew by a corrected processor', async () => {
      log.add(insert(1), insert(2, 1));
      const faulty = await start({ of: 'events' });
      await settled();
      await faulty.stop();
      [store, poison] = [new MemoryStateStore<string>(), () => false];
      await start({ of: 'events' });
      await settled();
      expect((await redriveAll('recorder', tick)).map(({ outcome }) => outcome)).to.deep.equal(['unneeded']);
      expect(store.state).to.deep.equal(['1:1:insert', '2:2:insert']);
      expect(await listed()).to.deep.equal([]);
    });

    it('keeps a letter from before states noted what they lack, unless the state lacks its event by now', async () => {
      log.add(insert(1), insert(2, 1), insert(3));
      poison = () => false;
      const role = await start();
      await settled();
      const deadLetters = await JetStreamDeadLetters.open(connection, { stream: `${name}DL`, subject: `${name}DL` });
      for (const seq of [1, 3])
        await deadLetters.publish({
          processor: 'recorder',
          seq,
          id: idOf((await log.get(seq))!),
          code: 'bad_event',
          reason: 'of old',
          attempts: 3,
          at: new Date().toISOString(),
          event: Buffer.from('{"n":1}'),
        });
      expect((await redriveAll('recorder', tick)).map(({ seq, outcome }) => `${seq} ${outcome}`)).to.deep.equal(['1 failed', '3 failed']);
      const kept = await listed();
      expect(kept.map(({ seq, reason, asked }) => ({ seq, reason, asked }))).to.deep.equal(
        [1, 3].map((seq) => ({ seq, reason: 'of old', asked: false })),
      );
      await role.stop();

      // Made anew by a processor that notes it: the letter there is stands for the hole.
      [store, poison] = [new MemoryStateStore<string>(), (id) => id === 1];
      await start();
      await settled();
      expect([...store.missing]).to.deep.equal([1]);
      poison = () => false;
      expect((await redriveAll('recorder', tick)).map(({ seq, outcome }) => `${seq} ${outcome}`)).to.deep.equal(['1 applied', '3 failed']);
      expect(store.state).to.deep.equal(['2:2:insert', '3:3:insert', '1:1:insert']);
    });

    it('applies an event once that has two letters', async () => {
      log.add(insert(1), insert(2, 1));
      await start({ of: 'events' });
      await settled();
      const [letter] = await listed();
      const deadLetters = await JetStreamDeadLetters.open(connection, { stream: `${name}DL`, subject: `${name}DL` });
      await deadLetters.publish({ ...letter!, event: letter!.event!, id: 'published once more, after the window of the stream' });
      poison = () => false;
      expect((await redriveAll('recorder', tick)).map(({ outcome }) => outcome)).to.deep.equal(['applied', 'unneeded']);
      expect(store.state).to.deep.equal(['2:2:insert', '1:1:insert']);
      expect(await listed()).to.deep.equal([]);
    });

    it('goes on with other events while it works, and takes a commit whose answer was lost for its own', async () => {
      log.add(insert(1), insert(2, 1));
      await start({ of: 'events' });
      await settled();
      poison = () => false;
      let n = 2;
      const results = await redriveAll('recorder', () => {
        store.loseAnswer = true;
        log.add(insert(++n, 1), tickEvent(log.head + 2), insert(++n, 1));
      });
      expect(results.map(({ outcome }) => outcome)).to.deep.equal(['applied']);
      await settled();
      expect(store.state.filter((effect) => effect.startsWith('1:'))).to.have.length(1);
      expect(new Set(store.state).size).to.equal(store.state.length);
      expect(store.state).to.have.length(n);
    });

    it('keeps what an operator drops, with the reason, and redrives it no more', async () => {
      log.add(insert(1), insert(2));
      await start();
      await settled();
      const [one, two] = await listed();
      expect(await desk.drop(one!, 'test "data"', 'ann')).to.equal(true);
      expect(await desk.drop(one!, 'again', 'ann')).to.equal(false);
      poison = () => false;
      const requests = await desk.request(
        'recorder',
        [one!, two!].map(({ place }) => ({ place, bytes: 1 })),
      );
      const timer = setInterval(tick, 100);
      for await (const { results } of desk.results(requests, AbortSignal.timeout(20_000)))
        expect(results.map(({ outcome }) => outcome).sort()).to.deep.equal(['applied', 'gone']);
      clearInterval(timer);
      expect(store.state).to.deep.equal(['2:2:insert']);
      const dropped = [];
      for await (const letter of desk.dropped('recorder', signal)) dropped.push(letter);
      expect(dropped.map(({ seq, dropped: note }) => ({ seq, by: note.by, reason: note.reason }))).to.deep.equal([
        { seq: 1, by: 'ann', reason: 'test "data"' },
      ]);
      expect(Buffer.from(dropped[0]!.event!).toString()).to.equal(Buffer.from(insert(1).data).toString());
      expect(await desk.counts()).to.deep.equal(new Map());
    });
  });

  describe('being told of it', () => {
    let proxy: TcpProxy;
    let own: NatsConnection;
    let context: RoleContext;
    let logs: FaultyLog[];
    const roles: Role[] = [];
    let ticking: NodeJS.Timeout;
    beforeEach(async () => {
      proxy = await tcpProxy(Number(new URL(natsUrl).port));
      const url = new URL(natsUrl);
      url.host = `127.0.0.1:${proxy.port}`;
      own = await connectNats(url.toString(), 'test', silentLogger());
      context = roleContext();
      logs = [];
      ticking = setInterval(() => logs.forEach((log) => log.add(tickEvent(log.head + 1))), 50);
    });
    afterEach(async () => {
      clearInterval(ticking);
      await Promise.all(roles.splice(0).map((role) => role.stop()));
      await own.close();
      await proxy.close();
    });

    const nameOf = (n: number): string => `aggregates.a${n}`;

    /** Processors with a letter each, corrected by now, on one connection. */
    async function start(count: number, through: NatsConnection = own): Promise<JetStreamDeadLetters> {
      const deadLetters = await JetStreamDeadLetters.open(through, { stream: `${name}DL`, subject: `${name}DL`, log: context.log });
      for (let n = 0; n < count; n++) {
        const [log, store] = [new FaultyLog(), new MemoryStateStore<string>()];
        log.add(rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1 } }));
        logs.push(log);
        let attempts = 0;
        const processor: Processor<string[]> = {
          name: nameOf(n),
          begin: () => [],
          apply({ subject }, effects) {
            if (!subject.endsWith('insert')) return;
            if (attempts++ < 3) throw new RangeError('no room');
            effects.push(subject);
          },
        };
        const { signal: its } = new AbortController();
        roles.push(startRunner({ ...context, signal: its }, { eventLog: log, processor, store, deadLetters, leaseMs: 10_000 }));
      }
      await until(async () => (await desk.counts()).size === count, 20_000, 'a letter of each');
      await until(async () => (await waiting()) === count, 20_000, 'each to know of its letter');
      return deadLetters;
    }
    /** How many letters the processors know of, as the metrics have it. */
    async function waiting(): Promise<number> {
      const text = await context.metrics.metrics();
      return [...text.matchAll(/headwater_dead_letters\{[^}]*\} (\d+)/g)].reduce((sum, [, value]) => sum + Number(value), 0);
    }
    const ask = async (processor: string): Promise<readonly MadeRequest[]> =>
      desk.request(
        processor,
        (await listed(processor)).map(({ place }) => ({ place, bytes: 1 })),
      );
    async function outcome(requests: readonly MadeRequest[]): Promise<string[]> {
      for await (const { results } of desk.results(requests, AbortSignal.timeout(25_000))) return results.map(({ outcome: it }) => it);
      return [];
    }

    it('happens at once, and nobody asks while there is nothing to do, however many processors there are', async () => {
      await start(20);
      const before = own.stats().outMsgs;
      await sleep(6_000);
      // With a look or two for all of them.
      expect(own.stats().outMsgs - before, 'messages sent by 20 idle processors in 6 s').to.be.at.most(6);
      const times: number[] = [];
      for (const n of [0, 7, 19]) {
        const began = performance.now();
        expect(await outcome(await ask(nameOf(n)))).to.deep.equal(['applied']);
        times.push(performance.now() - began);
      }
      // The ticks come each 50 ms.
      expect(Math.min(...times), `${times.map(Math.round).join(', ')} ms`).to.be.below(600);
      await until(async () => (await waiting()) === 17);
      expect((await desk.counts()).has(nameOf(7))).to.equal(false);
    });

    it('though it is told of a request before that is stored', async () => {
      const { redrives } = await start(2);
      const next = redrives.next.bind(redrives);
      const stored = performance.now() + 700;
      redrives.next = async (processor) => (performance.now() < stored ? undefined : next(processor));
      expect(await outcome(await ask(nameOf(1)))).to.deep.equal(['applied']);
      expect(performance.now() - stored).to.be.below(3_000);
    });

    it('of a request that was made while the connection was lost, as soon as it is back', async () => {
      await start(2);
      proxy.cut();
      const requests = await ask(nameOf(1));
      proxy.restore();
      const began = performance.now();
      expect(await outcome(requests)).to.deep.equal(['applied']);
      expect(performance.now() - began).to.be.below(7_000);
      // It listens again, too.
      const again = performance.now();
      expect(await outcome(await ask(nameOf(0)))).to.deep.equal(['applied']);
      expect(performance.now() - again).to.be.below(3_000);
    });

    it('within some seconds when its user may not listen, or nothing is heard', async () => {
      // As if what it is told got lost.
      const deaf = new Proxy(own, {
        get(target, key) {
          if (key === 'subscribe') return () => target.subscribe(`${name}.nothing`);
          const value: unknown = Reflect.get(target, key);
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        },
      });
      await start(2, deaf);
      expect(await outcome(await ask(nameOf(1)))).to.deep.equal(['applied']);
    });

    it('ends with the processors', async () => {
      await start(3);
      await Promise.all(roles.splice(0).map((role) => role.stop()));
      const { inMsgs } = own.stats();
      expect(await ask(nameOf(1))).to.have.length(1);
      await own.flush();
      expect(own.stats().inMsgs - inMsgs, 'messages that are still heard').to.equal(0);
    });
  });

  describe('in the stream', () => {
    let requests: JetStreamRedrives;
    const of = { processor: 'recorder', reason: 'odd', attempts: 3, code: 'bad_event', at: '2026-11-22T12:00:00.000Z', epoch: 'epoch-1' };
    const letter = (seq: number): DeadLetter => ({ ...of, seq, id: '', subject: 'ev._mark', event: Buffer.from('{}') });
    beforeEach(async () => {
      const settings = { stream: `${name}DL`, subject: `${name}DL` };
      const deadLetters = await JetStreamDeadLetters.open(connection, settings);
      for (const seq of [1, 2, 3]) await deadLetters.publish(letter(seq));
      requests = new JetStreamRedrives({ connection, jsm, ...settings }, { keepMs: 300 });
    });

    it('leaves one letter of each event that failed again, whenever it was killed', async () => {
      await desk.request(
        'recorder',
        [1, 2, 3].map((place) => ({ place, bytes: 2 })),
      );
      const request = (await requests.next('recorder'))!;
      const again = (seq: number): DeadLetter => ({ ...letter(seq), reason: 'odd still', attempts: 6 });
      // Killed: the first letter is put back, and neither the one it stands for is removed, nor the request.
      const nowhere = 2 ** 40;
      await requests.finish('recorder', { ...request, place: nowhere }, [
        { place: nowhere, outcome: 'failed', reason: 'odd still', letter: again(1) },
      ]);
      // Another session has it from the store that they failed, and does not know why.
      const failed = request.letters.map((place) => ({ place, outcome: 'failed' as const }));
      for (let n = 0; n < 2; n++) await requests.finish('recorder', request, failed);
      expect((await listed()).map(({ seq, attempts }) => `${seq} ${attempts}`).sort()).to.deep.equal(['1 6', '2 3', '3 3']);
      expect(await requests.next('recorder')).to.equal(undefined);
    });

    it('forgets what became of requests once nobody waits for it', async () => {
      const records = async (): Promise<number> =>
        Object.keys((await jsm.streams.info(`${name}DL`, { subjects_filter: `${name}DL._redriven.>` })).state.subjects ?? {}).length;
      const [request] = await desk.request('recorder', [{ place: 1, bytes: 2 }]);
      await requests.finish('recorder', { ...request!, letters: [1] }, [{ place: 1, outcome: 'applied', seq: 1 }]);
      await requests.tidy('recorder');
      expect(await records()).to.equal(1);
      await until(async () => {
        await requests.tidy('recorder');
        return (await records()) === 0;
      });
      expect((await listed()).map(({ seq }) => seq)).to.deep.equal([2, 3]);
    });
  });

  describe('under kill -9', () => {
    let redis: RedisNamespace;
    let events: JetStreamLog;
    const programs: TestProgram[] = [];
    let ticking: NodeJS.Timeout;
    const appendOnce = async (subject: string, body: object): Promise<void> => {
      const { last } = await events.bounds();
      await events.append(
        [{ subject: `${name}.${subject}`, data: Buffer.from(JSON.stringify({ v: 1, ...body, at: new Date().toISOString() })) }],
        last,
      );
    };
    beforeEach(async () => {
      redis = await redisNamespace();
      events = await JetStreamLog.create(
        connection,
        { stream: name, subject: name, replicas: 1, maxAgeMs: undefined, maxBytes: undefined },
        silentLogger(),
      );
    });
    afterEach(async () => {
      clearInterval(ticking);
      for (const { child, ended } of programs.splice(0)) {
        child.kill('SIGKILL');
        await ended;
      }
      await redis.close();
      events.close();
      await jsm.streams.delete(name);
    });

    const start = async (mode: string, death = ''): Promise<TestProgram> => {
      const program = runTestProgram('run-redrive', [natsUrl, redis.url, name, redis.keys.prefix, mode, death]);
      programs.push(program);
      await program.nextLine();
      return program;
    };

    for (const death of ['before', 'after', 'removed']) {
      it(`has each effect once when it dies ${death === 'removed' ? 'between removing letters and request' : `right ${death} the commit`}`, async () => {
        for (let id = 1; id <= 30; id++) await appendOnce('public.t.insert', { op: 'insert', key: { id }, after: { id } });
        const faulty = await start('faulty');
        await until(async () => (await listed()).length === 3, 20_000, 'three letters');
        await until(async () => (await redis.client.llen(`${redis.keys.prefix}:ledger`)) === 27, 20_000, 'the others');
        faulty.child.kill('SIGKILL');
        await faulty.ended;

        const letters = await listed('ledger');
        const requests = await desk.request(
          'ledger',
          letters.map(({ place, event }) => ({ place, bytes: event!.length })),
        );
        const dying = await start('corrected', death);
        let pending = Promise.resolve();
        ticking = setInterval(() => void (pending = pending.then(() => appendOnce('_tick', { type: 'tick' }))), 200);
        expect(await dying.ended).to.equal('SIGKILL');
        await start('corrected');
        const outcomes: string[] = [];
        for await (const { results } of desk.results(requests, AbortSignal.timeout(20_000)))
          outcomes.push(...results.map(({ outcome }) => outcome));
        expect(outcomes).to.deep.equal(['applied', 'applied', 'applied']);
        await until(async () => (await listed()).length === 0);
        // Nothing is left to be taken once more.
        await until(
          async () => (await jsm.streams.info(`${name}DL`, { subjects_filter: `${name}DL._redrive.>` })).state.subjects === undefined,
        );
        clearInterval(ticking);
        await pending;
        const done = (await redis.client.lrange(`${redis.keys.prefix}:ledger`, 0, -1)).map(Number).sort((a, b) => a - b);
        expect(done).to.deep.equal(Array.from({ length: 30 }, (_, i) => i + 1));
      });
    }
  });
});

import { expect } from 'chai';
import type { LogEvent, NewEvent } from '../../pipeline/log/event-log.ts';
import type { DeadLetter, DeadLetters } from '../../pipeline/runner/dead-letters.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { startRunner, type RunnerParts } from '../../pipeline/runner/runner.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import type { Role, RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { FaultyLog } from '../support/faulty-log.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';
import { roleContext, until } from '../support/role-context.ts';
import { idText, rowEvent, tickEvent } from '../support/row-events.ts';

/** Appends the sequence of each event that is no tick; fails at those whose sequence is poison. */
class Recorder implements Processor<number[]> {
  readonly name = 'recorder';
  resets = 0;
  readonly attempts = new Map<number, number>();
  poison: (seq: number) => boolean = () => false;

  begin(): number[] {
    return [];
  }

  apply({ seq, subject }: LogEvent, effects: number[]): void {
    this.attempts.set(seq, (this.attempts.get(seq) ?? 0) + 1);
    if (subject.endsWith('_tick')) return;
    if (this.poison(seq)) throw new HeadwaterError('bad_event', `cannot apply ${seq}`);
    effects.push(seq);
  }

  reset(): void {
    this.resets++;
  }
}

/** Keeps letters, and what was stored when each of them came. */
class Letters implements DeadLetters {
  readonly letters: DeadLetter[] = [];
  readonly storedThen: (number | undefined)[] = [];
  readonly #store: MemoryStateStore<number>;
  constructor(store: MemoryStateStore<number>) {
    this.#store = store;
  }
  publish(letter: DeadLetter): Promise<void> {
    this.letters.push(letter);
    this.storedThen.push(this.#store.stored?.seq);
    return Promise.resolve();
  }
}

const event = (n: number): NewEvent => rowEvent(n, 'insert', { key: { id: n }, after: { id: n } });
const events = (from: number, to: number): NewEvent[] => Array.from({ length: to - from + 1 }, (_, i) => event(from + i));
const numbers = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe('runner', () => {
  let log: FaultyLog;
  let store: MemoryStateStore<number>;
  let letters: Letters;
  let recorder: Recorder;
  let context: RoleContext;
  const roles: Role[] = [];

  beforeEach(() => {
    log = new FaultyLog();
    store = new MemoryStateStore<number>();
    letters = new Letters(store);
    recorder = new Recorder();
    context = roleContext();
  });
  afterEach(async () => {
    await Promise.all(roles.splice(0).map((role) => role.stop()));
  });

  function start(extra: Partial<RunnerParts<number[]>> = {}, processor: Processor<number[]> = recorder): Role {
    const role = startRunner(context, { eventLog: log, processor, store, deadLetters: letters, leaseMs: 300, ...extra });
    roles.push(role);
    return role;
  }
  const stored = (seq: number) => () => store.stored?.seq === seq;
  const fault = async (role: Role): Promise<HeadwaterError> =>
    role.done.then(
      () => expect.fail('the runner should have stopped with an error'),
      (error: unknown) => error as HeadwaterError,
    );

  it('applies every event once, in order, from the first that the log holds', async () => {
    log.add(...events(1, 50));
    log.trim(11);
    start();
    await until(stored(50));
    log.add(...events(51, 60));
    await until(stored(60));
    expect(store.state).to.deep.equal(numbers(11, 60));
  });

  it('goes on from the stored offset after a stop, and commits what it has begun before it ends', async () => {
    log.add(...events(1, 30));
    const first = start();
    await until(stored(30));
    await first.stop();
    log.add(...events(31, 40));
    start();
    await until(stored(40));
    expect(store.state).to.deep.equal(numbers(1, 40));
  });

  it('commits single events when idle, and full batches under load', async () => {
    const role = start({ limits: { events: 100 } });
    await until(() => store.stored !== undefined);
    for (let n = 1; n <= 5; n++) {
      log.add(event(n));
      await until(stored(n));
    }
    const idle = store.commits;
    expect(idle).to.equal(6);
    log.add(...events(6, 1_005));
    await until(stored(1_005));
    expect(store.commits - idle).to.be.within(10, 14);
    await role.stop();
  });

  it('moves the offset over events that its filter leaves out', async () => {
    recorder = Object.assign(new Recorder(), { subjects: ['ev.public.other.>'] });
    log.add(...events(1, 20), tickEvent(21));
    start();
    await until(stored(21));
    expect(store.state).to.deep.equal([]);
  });

  describe('a processor that loads what a batch needs', () => {
    /** What `prepare` was asked, and what had been applied by then. */
    let asked: { readonly seqs: readonly number[]; readonly applied: number }[];
    let away: boolean;
    beforeEach(() => {
      asked = [];
      away = false;
    });

    const preparing = (): Processor<number[]> => ({
      name: recorder.name,
      begin: () => recorder.begin(),
      apply: (item, effects) => {
        expect(asked.at(-1)?.seqs, `${item.seq} is applied after it was prepared`).to.include(item.seq);
        recorder.apply(item, effects);
      },
      prepare: (some) => {
        asked.push({ seqs: some.map(({ seq }) => seq), applied: recorder.attempts.size });
        return away ? Promise.reject(new Error('the store is away')) : Promise.resolve();
      },
    });

    it('is asked before the first of them is applied, for no more than one commit may have', async () => {
      log.add(...events(1, 250));
      start({ limits: { events: 100 } }, preparing());
      await until(stored(250));
      log.add(event(251));
      await until(stored(251));
      expect(store.state).to.deep.equal(numbers(1, 251));
      expect(asked.map(({ seqs, applied }) => [seqs[0], seqs.length, applied])).to.deep.equal([
        [1, 100, 0],
        [101, 100, 100],
        [201, 50, 200],
        [251, 1, 250],
      ]);
    });

    it('is asked again until its store answers, and nothing is applied before', async () => {
      away = true;
      log.add(...events(1, 3));
      start({}, preparing());
      await until(() => asked.length > 2);
      expect(recorder.attempts.size).to.equal(0);
      expect(context.health.ready).to.equal(false);
      away = false;
      await until(stored(3));
      expect(store.state).to.deep.equal([1, 2, 3]);
      expect(context.health.ready).to.equal(true);
    });

    it('can be stopped while its store is away', async () => {
      away = true;
      log.add(event(1));
      const role = start({}, preparing());
      await until(() => asked.length > 1);
      await role.stop();
      expect(store.state).to.deep.equal([]);
    });
  });

  it('sends an event that fails three times to the dead letters before the offset moves on, and goes on', async () => {
    recorder.poison = (seq) => seq === 7;
    log.add(...events(1, 6));
    start();
    await until(stored(6));
    log.add(event(7));
    await until(stored(7));
    log.add(...events(8, 9));
    await until(stored(9));
    expect(store.state).to.deep.equal([1, 2, 3, 4, 5, 6, 8, 9]);
    expect(recorder.attempts.get(7)).to.equal(3);
    expect(letters.storedThen).to.deep.equal([6]);
    const [letter] = letters.letters;
    expect(letter).to.deep.include({
      processor: 'recorder',
      seq: 7,
      id: idText(7),
      code: 'bad_event',
      reason: 'cannot apply 7',
      attempts: 3,
    });
    expect(letter!.event).to.deep.equal(event(7).data);
    expect(Date.parse(letter!.at)).to.be.closeTo(Date.now(), 10_000);
  });

  it('waits for dead letters that cannot be stored, without moving on', async () => {
    recorder.poison = (seq) => seq === 2;
    log.add(...events(1, 3));
    let away = true;
    const flaky: DeadLetters = { publish: (letter) => (away ? Promise.reject(new Error('no answer')) : letters.publish(letter)) };
    start({ deadLetters: flaky });
    await until(() => recorder.attempts.get(2) === 3);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(store.stored?.seq ?? 0).to.be.lessThan(2);
    away = false;
    await until(stored(3));
    expect(letters.letters.map(({ seq }) => seq)).to.deep.equal([2]);
    expect(store.state).to.deep.equal([1, 3]);
  });

  it('stops when ten events in a row cannot be applied, ticks between them notwithstanding; nine are only letters', async () => {
    recorder.poison = (seq) => (seq > 1 && seq <= 10) || seq > 20;
    log.add(...events(1, 30), ...numbers(31, 60).flatMap((n) => [event(n), tickEvent(n)]));
    const error = await fault(start());
    expect(error.code).to.equal('too_many_dead_letters');
    expect(letters.letters.map(({ seq }) => seq)).to.deep.equal([...numbers(2, 10), ...numbers(21, 29)]);
    expect(store.stored?.seq).to.be.lessThan(30);
    expect(context.health.ready).to.equal(false);
  });

  it('takes a commit whose answer was lost for its own, and does not repeat it', async () => {
    log.add(...events(1, 5));
    start();
    await until(stored(5));
    store.loseAnswer = true;
    log.add(event(6));
    await until(stored(6));
    log.add(event(7));
    await until(stored(7));
    expect(store.state).to.deep.equal(numbers(1, 7));
    expect(recorder.resets).to.equal(1);
  });

  it('forgets what it has in memory and loads again when the store holds something else', async () => {
    log.add(...events(1, 20));
    start();
    await until(stored(20));
    // The store was set back to an older state.
    store.state = numbers(1, 12);
    store.stored = { seq: 12, epoch: log.epoch };
    log.add(...events(21, 25));
    await until(stored(25));
    expect(store.state).to.deep.equal(numbers(1, 25));
    expect(recorder.resets).to.equal(2);
  });

  it('fills an emptied store again from the beginning', async () => {
    log.add(...events(1, 20));
    start();
    await until(stored(20));
    store.state = [];
    store.stored = undefined;
    log.add(event(21));
    await until(stored(21));
    expect(store.state).to.deep.equal(numbers(1, 21));
  });

  it('waits for a store and a log that are away, and says so', async () => {
    store.failure = new Error('store away');
    log.add(...events(1, 10));
    start();
    await new Promise((resolve) => setTimeout(resolve, 80));
    store.failure = undefined;
    await until(stored(10));
    store.failure = new Error('store away');
    log.add(event(11));
    await until(() => !context.health.ready);
    store.failure = undefined;
    await until(stored(11));
    log.failure = new Error('log away');
    await new Promise((resolve) => setTimeout(resolve, 80));
    log.failure = undefined;
    log.add(event(12));
    await until(stored(12));
    expect(store.state).to.deep.equal(numbers(1, 12));
    expect(context.health.ready).to.equal(true);
  });

  for (const [code, offset] of [
    ['offset_expired', { seq: 3, epoch: 'epoch-1' }],
    ['log_regressed', { seq: 99, epoch: 'epoch-1' }],
    ['epoch_changed', { seq: 15, epoch: 'another' }],
  ] as const) {
    it(`stops with ${code} when the offset is ${JSON.stringify(offset)}, and never skips`, async () => {
      log.add(...events(1, 20));
      log.trim(10);
      store.stored = offset;
      const error = await fault(start());
      expect(error.code).to.equal(code);
      expect(error.hint).to.be.a('string');
      expect(store.stored).to.deep.equal(offset);
      expect(store.state).to.deep.equal([]);
    });
  }

  it('lets the role mend an offset that says nothing any more', async () => {
    log.add(...events(1, 20));
    log.trim(10);
    store.stored = { seq: 3, epoch: 'epoch-1' };
    start({
      mend: (reason) => {
        store.stored = undefined;
        return Promise.resolve(reason.code === 'offset_expired');
      },
    });
    await until(stored(20));
    expect(store.state).to.deep.equal(numbers(10, 20));
  });

  it('stops when the log becomes another history while it works', async () => {
    log.add(...events(1, 5));
    const role = start();
    await until(stored(5));
    log.epoch = 'epoch-2';
    expect((await fault(role)).code).to.equal('epoch_changed');
  });

  it('lets one of two instances work; the other takes over at once when it stops, and when its lease lapses', async () => {
    const second = new Recorder();
    log.add(...events(1, 10));
    const one = start();
    await until(stored(10));
    const two = start({}, second);
    log.add(...events(11, 20));
    await until(stored(20));
    expect(second.attempts.size).to.equal(0);
    await one.stop();
    log.add(...events(21, 30));
    await until(stored(30));
    expect(second.attempts.has(21)).to.equal(true);
    // A third owner that never renews: as if the leader had frozen.
    await two.stop();
    await store.lease('frozen', 200);
    const third = new Recorder();
    start({}, third);
    log.add(event(31));
    await until(stored(31));
    expect(store.state).to.deep.equal(numbers(1, 31));
  });

  it('stands by when another instance has taken its lease, without harm to the state', async () => {
    log.add(...events(1, 10));
    start();
    await until(stored(10));
    expect(await context.metrics.getSingleMetricAsString('headwater_processor_working')).to.include('{processor="recorder"} 1');
    // As when the store was emptied and another instance was quicker.
    const held = new MemoryStateStore<number>();
    await held.lease('another', 10_000);
    Object.assign(store, { lease: held.lease.bind(held) });
    await until(async () => (await context.metrics.getSingleMetricAsString('headwater_processor_working')).includes('} 0'));
    log.add(event(11));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(store.stored?.seq).to.equal(10);
  });

  it('counts its events, commits, dead letters and lag', async () => {
    recorder.poison = (seq) => seq === 3;
    log.add(...events(1, 9));
    start();
    await until(stored(9));
    const text = await context.metrics.metrics();
    expect(text).to.match(/headwater_processor_events_total\{processor="recorder"\} 9/);
    expect(text).to.match(/headwater_processor_dead_letters_total\{processor="recorder"\} 1/);
    expect(text).to.match(/headwater_processor_commit_seconds_count\{processor="recorder"\} [1-9]/);
    expect(text).to.match(/headwater_processor_lag_events\{processor="recorder"\} \d/);
  });
});

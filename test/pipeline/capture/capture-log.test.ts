import { expect } from 'chai';
import { CaptureLog } from '../../../pipeline/capture/capture-log.ts';
import { ChangeTracker } from '../../../pipeline/capture/backfill/change-tracker.ts';
import { LogWriter, type LogEnd } from '../../../pipeline/capture/log-writer.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { transaction } from './support/source-events.ts';

interface Written {
  readonly id: string;
  readonly type?: string;
}

async function contents(log: MemoryLog): Promise<Written[]> {
  const found: Written[] = [];
  for (let seq = 1; seq <= log.head; seq++) found.push(JSON.parse(Buffer.from((await log.get(seq))!.data).toString('utf8')) as Written);
  return found;
}

describe('the way into the log', () => {
  let log: MemoryLog;
  let out: CaptureLog;
  let writing: Promise<void>;
  let stopping: AbortController;
  const begin = (end: LogEnd = { seq: log.head, position: { lsn: 1n, index: 0 } }, between = true): void => {
    const writer = new LogWriter(log, end, silentLogger(), new AbortController().signal);
    out = new CaptureLog(writer, new ChangeTracker(), 1_000_000, between, () => undefined);
    stopping = new AbortController();
    writing = out.run(stopping.signal);
  };
  const mark = (): Promise<void> =>
    out.between(() => out.writeBetween(['ev._mark.test'], (encoder, index) => encoder.mark(index, 'test', {})));
  const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
  beforeEach(() => {
    log = new MemoryLog();
  });
  afterEach(async () => {
    stopping.abort();
    await writing;
  });

  it('lets nothing in between the batches of one transaction', async () => {
    begin();
    const events = transaction(5n, 2_500);
    await out.push(events.slice(0, 1_200));
    const marked = mark();
    await turn();
    expect(log.head, 'the first batch alone').to.equal(1_000);
    await out.push(events.slice(1_200));
    await marked;
    const written = await contents(log);
    expect(written.length).to.equal(2_501);
    expect(written.findIndex(({ type }) => type === 'mark')).to.equal(2_500);
    expect(written.at(-1)!.id).to.equal('0000000000000005.80000000');
  });

  it('lets nothing in before the rest of a transaction that the log ended in when capture was killed', async () => {
    const events = transaction(5n, 1_500);
    await log.append(events.slice(0, 1_000), 0);
    begin({ seq: 1_000, position: events[999]! }, false);
    const marked = mark();
    await turn();
    await out.push(events.slice(1_000));
    await marked;
    const written = await contents(log);
    expect(written.map(({ id }) => id)).to.deep.equal(written.map(({ id }) => id).toSorted());
    expect(written.findIndex(({ type }) => type === 'mark')).to.equal(1_500);
  });

  it('does not call a transaction whole before its last event is durable', async () => {
    begin();
    await out.push([...transaction(5n, 3), ...transaction(9n, 2_500).slice(0, 2_000)]);
    await turn();
    expect(log.head).to.equal(2_003);
    expect(out.wholeLsn).to.equal(5n);
    expect(out.end.position.lsn).to.equal(9n);
  });

  it('does not call the transaction whole that the log ended in', () => {
    begin({ seq: 0, position: { lsn: 9n, index: 3 } });
    expect(out.wholeLsn).to.equal(8n);
  });

  it('tells whoever waits when it stops: nothing counts as written that is not', async () => {
    begin();
    await out.push(transaction(5n, 3).slice(0, 1));
    const flushed = out.flushed().then(
      () => 'flushed',
      () => 'stopped',
    );
    stopping.abort();
    expect(await flushed).to.equal('stopped');
    const later = [out.flushed(), out.push(transaction(6n, 1)), mark()].map((promise) =>
      promise.then(
        () => 'done',
        () => 'stopped',
      ),
    );
    expect(await Promise.all(later)).to.deep.equal(['stopped', 'stopped', 'stopped']);
  });

  it('numbers what stands between transactions behind the event before it, over several batches and calls', async () => {
    begin();
    await out.push(transaction(5n, 1));
    await turn();
    const write = (count: number): Promise<void> => {
      const subjects = Array.from({ length: count }, () => 'ev._mark.test');
      return out.between(() => out.writeBetween(subjects, (encoder, index) => encoder.mark(index, 'test', {})));
    };
    await write(1_500);
    await write(2);
    await out.push(transaction(6n, 1));
    await turn();
    const written = (await contents(log)).map(({ id }) => id);
    expect(written.length).to.equal(1_504);
    expect(written).to.deep.equal(written.toSorted());
    expect([written[1], written[1_502], written[1_503]]).to.deep.equal([
      '0000000000000005.80000000',
      '0000000000000005.800005DD',
      '0000000000000006.00000001',
    ]);
  });

  it('keeps whoever pushes waiting while too much waits already', async () => {
    begin();
    let going = true;
    let pushed = 0;
    const pushing = (async () => {
      for (let lsn = 2n; going && pushed < 400; lsn++, pushed++) await out.push(transaction(lsn, 1, { size: 500_000 }));
    })();
    // Nothing is written while the log does not answer.
    let answer: () => void = () => undefined;
    const append = log.append.bind(log);
    const held = new Promise<void>((resolve) => (answer = resolve));
    log.append = async (...batch) => {
      await held;
      return append(...batch);
    };
    await turn();
    await turn();
    expect(pushed).to.be.lessThan(60);
    going = false;
    answer();
    await pushing;
  });

  it('finds a place between transactions also while more come than the log takes', async () => {
    begin();
    let going = true;
    const pushing = (async () => {
      for (let lsn = 2n; going; lsn++) {
        await out.push(transaction(lsn, 700));
        await turn();
      }
    })();
    // The log answers late, so that something is always on its way.
    const append = log.append.bind(log);
    log.append = async (...batch) => {
      const stored = append(...batch);
      await new Promise((resolve) => setTimeout(resolve, 20));
      return stored;
    };
    for (let n = 0; n < 3; n++) await mark();
    going = false;
    await pushing;
    const marks = (await contents(log)).flatMap(({ type }, n) => (type === 'mark' ? [n] : []));
    expect(marks.length).to.equal(3);
    for (const n of marks) expect((n - marks.indexOf(n)) % 700, 'between transactions').to.equal(0);
  });

  it('sends single events while others are on their way, and goes on in order when answers come late', async () => {
    begin();
    let open = 0;
    let most = 0;
    const append = log.append.bind(log);
    log.append = async (...batch) => {
      most = Math.max(most, ++open);
      const stored = append(...batch);
      await new Promise((resolve) => setTimeout(resolve, 10));
      open--;
      return stored;
    };
    for (let lsn = 2n; lsn < 202n; lsn++) {
      await out.push(transaction(lsn, 1));
      if (lsn % 3n === 0n) await turn();
    }
    await out.flushed();
    const written = (await contents(log)).map(({ id }) => id);
    expect(written.length).to.equal(200);
    expect(written).to.deep.equal(written.toSorted());
    expect(most).to.be.greaterThan(1);
    expect(out.wholeLsn).to.equal(201n);
  });
});

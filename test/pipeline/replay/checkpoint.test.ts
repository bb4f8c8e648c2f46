import { expect } from 'chai';
import { existsSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CheckpointFile, type Checkpoint } from '../../../pipeline/replay/checkpoint.ts';
import { nothingSettled } from '../../../pipeline/replay/target.ts';
import { until } from '../../support/role-context.ts';

/** Longer than anybody needs to write a checkpoint. */
const longAgo = new Date(Date.now() - 60_000);

function of(pid: number): Checkpoint {
  return {
    version: 1,
    run: `run${pid}`,
    stream: 'EV',
    epoch: 'e',
    holder: { host: 'here', pid, incarnation: 'now' },
    what: {},
    range: { first: 1, last: 9 },
    next: 1,
    settled: nothingSettled,
  };
}

describe('the checkpoint of a replay', function () {
  this.timeout(15_000);
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'headwater-checkpoint-'));
    path = join(folder, 'replay', 'one.json');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** As processes do that begin at the same moment: whoever finds another one's mark that is not of the dead gives up. */
  const take = (pid: number): Promise<void> => {
    const file = new CheckpointFile(path);
    return file.alone(async () => {
      const found = await file.read();
      if (found && found.holder.pid !== 0) throw new Error('taken');
      await file.write(of(pid));
    }, new AbortController().signal);
  };

  it('belongs to one of those that begin at once, whether there is none yet or one of a dead process', async () => {
    for (const before of [undefined, of(0)]) {
      if (before) await new CheckpointFile(path).write(before);
      const ended = await Promise.allSettled(Array.from({ length: 12 }, (_, i) => take(i + 1)));
      expect(ended.filter(({ status }) => status === 'fulfilled').length).to.equal(1);
      const winner = ended.findIndex(({ status }) => status === 'fulfilled') + 1;
      expect((await new CheckpointFile(path).read())?.run).to.equal(`run${winner}`);
      expect(readdirSync(join(folder, 'replay'))).to.deep.equal(['one.json']);
    }
  });

  it('is not held up for ever by one that was killed while it began', async () => {
    await new CheckpointFile(path).write(of(0));
    writeFileSync(`${path}.lock`, '');
    utimesSync(`${path}.lock`, longAgo, longAgo);
    await take(1);
    expect(existsSync(`${path}.lock`)).to.equal(false);
  });

  it('has one at work at a time, also where several find at once what a killed one left', async () => {
    let [inside, most] = [0, 0];
    const work = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await sleep(2);
      inside--;
    };
    await new CheckpointFile(path).write(of(0));
    for (let round = 0; round < 20 && most < 2; round++) {
      writeFileSync(`${path}.lock`, '');
      utimesSync(`${path}.lock`, longAgo, longAgo);
      await Promise.all(Array.from({ length: 8 }, () => new CheckpointFile(path).alone(work, new AbortController().signal)));
    }
    expect(most).to.equal(1);
    expect(readdirSync(join(folder, 'replay'))).to.deep.equal(['one.json']);
  });

  it('is still one’s own when somebody who was taken for dead is done', async () => {
    const { signal } = new AbortController();
    const [first, second] = [gate(), gate()];
    const order: string[] = [];
    const held = (name: string, { opened }: ReturnType<typeof gate>): Promise<void> =>
      new CheckpointFile(path).alone(async () => {
        order.push(`${name} begins`);
        await opened;
        order.push(`${name} ends`);
      }, signal);
    const locks = (): readonly string[] => readdirSync(join(folder, 'replay')).filter((name) => name.includes('.lock'));
    const a = held('a', first);
    await until(() => order.length === 1);
    for (const name of locks()) utimesSync(join(folder, 'replay', name), longAgo, longAgo);
    const b = held('b', second);
    await until(() => order.length === 2);
    first.open();
    await a;
    const c = held('c', { opened: Promise.resolve(), open: () => undefined });
    await sleep(200);
    second.open();
    await Promise.all([b, c]);
    expect(order).to.deep.equal(['a begins', 'b begins', 'a ends', 'b ends', 'c begins', 'c ends']);
    expect(locks()).to.deep.equal([]);
  });
});

/** Something to wait for, until it is opened. */
function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open: () => open() };
}

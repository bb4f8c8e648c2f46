import { expect } from 'chai';
import { existsSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointFile, type Checkpoint } from '../../../pipeline/replay/checkpoint.ts';
import { nothingSettled } from '../../../pipeline/replay/target.ts';

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
    const longAgo = new Date(Date.now() - 60_000);
    utimesSync(`${path}.lock`, longAgo, longAgo);
    await take(1);
    expect(existsSync(`${path}.lock`)).to.equal(false);
  });
});

import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MemoryLog } from '../support/memory-log.ts';
import { projectRoot } from '../project-root.ts';
import { price, startHarness, until } from './support/harness.ts';

/** The JavaScript client of docs/gateway.md. */
function documentedClient(): string {
  const text = readFileSync(join(projectRoot(), 'docs', 'gateway.md'), 'utf8');
  const [, code] = /```js\n([\s\S]*?)```/.exec(text) ?? [];
  return code ?? '';
}

describe('the JavaScript client of the documentation', () => {
  it('gets every event once, in order, though the gateway is restarted under it', async () => {
    const log = new MemoryLog();
    const append = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) await log.append([price(`eth:${i}`, i)], log.head);
    };
    await append(5);
    let at = await startHarness(log);
    const url = at.gateway.url.replace('http', 'ws');
    const environment = { ...process.env, URL: url, KEY: 'secret' };
    const client = spawn(process.execPath, ['--input-type=module', '--eval', documentedClient()], { cwd: projectRoot(), env: environment });
    const out: string[] = [];
    const err: string[] = [];
    client.stdout.setEncoding('utf8').on('data', (text: string) => out.push(text));
    client.stderr.setEncoding('utf8').on('data', (text: string) => err.push(text));
    const seqs = (): number[] => [...out.join('').matchAll(/^(\d+) \{/gm)].map((match) => Number(match[1]));
    try {
      // It begins at "now", so events are written until the first one comes.
      await until(() => (void append(1), seqs().length > 0), 20_000);
      await at.gateway.stop();
      await append(50);
      at = await startHarness(log, { env: { HEADWATER_PORT: new URL(url).port } });
      await append(50);
      const last = log.head;
      await until(() => seqs().at(-1) === last, 20_000);
      const first = seqs()[0]!;
      expect(seqs()).to.deep.equal(Array.from({ length: last - first + 1 }, (_, i) => first + i));
      expect(err.join(''))
        .to.match(/^restart /)
        .and.not.to.match(/Error/);
    } finally {
      client.kill();
      await once(client, 'close');
      await at.stop();
    }
  });
});

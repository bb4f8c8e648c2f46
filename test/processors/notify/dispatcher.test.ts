import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { Dispatcher } from '../../../processors/notify/dispatcher.ts';
import type { ClaimedJob } from '../../../processors/notify/job-store.ts';
import { defaultOptions, type EndpointLimits } from '../../../processors/notify/options.ts';
import { until } from '../../support/role-context.ts';

interface Setting {
  readonly queues: Record<string, number>;
  readonly limits: EndpointLimits;
  readonly concurrency: number;
  /** How long an attempt takes (ms). */
  readonly ms: (endpoint: string) => number;
}

/** A dispatcher over counters instead of PostgreSQL; keeps what was attempted, in order. */
function dispatcherOver({ queues, limits, concurrency, ms }: Setting): {
  dispatcher: Dispatcher;
  attempts: { endpoint: string; at: number }[];
  peak(): number;
} {
  const attempts: { endpoint: string; at: number }[] = [];
  let [running, peak] = [0, 0];
  const dispatcher = new Dispatcher({
    options: { ...defaultOptions, concurrency, endpoints: { webhook: limits, email: limits, push: limits } },
    log: silentLogger(),
    async claim(endpoint) {
      await sleep(1);
      if (!queues[endpoint]) return undefined;
      queues[endpoint]--;
      return { endpoint, channel: 'webhook', probe: false } as unknown as ClaimedJob;
    },
    async attempt({ endpoint }) {
      attempts.push({ endpoint, at: performance.now() });
      peak = Math.max(peak, ++running);
      await sleep(ms(endpoint));
      running--;
      return true;
    },
  });
  return { dispatcher, attempts, peak: () => peak };
}

describe('notify dispatcher', () => {
  it('lets endpoints take turns when slots are short', async () => {
    const queues = { 'webhook a': 50, 'webhook b': 5, 'webhook c': 5 };
    const { dispatcher, attempts, peak } = dispatcherOver({
      queues,
      limits: { inFlight: 4, perSecond: 1_000 },
      concurrency: 4,
      ms: () => 5,
    });
    for (const endpoint of Object.keys(queues)) dispatcher.wake(endpoint);
    await until(() => attempts.length === 60);
    expect(peak()).to.equal(4);
    for (const few of ['webhook b', 'webhook c'])
      expect(
        attempts.findLastIndex(({ endpoint }) => endpoint === few),
        few,
      ).to.be.lessThan(40);
    await dispatcher.stop();
  });

  it('gives a free slot to one that can use it, though another has waited longer', async () => {
    const queues = { 'webhook hanging': 10, 'webhook brief': 1, 'webhook fine': 1 };
    const ms = (endpoint: string): number => (endpoint === 'webhook hanging' ? 600 : endpoint === 'webhook brief' ? 50 : 1);
    const { dispatcher, attempts } = dispatcherOver({ queues, limits: { inFlight: 2, perSecond: 1_000 }, concurrency: 3, ms });
    dispatcher.wake('webhook hanging');
    await until(() => attempts.length === 2);
    void dispatcher.offer('webhook brief', 'b');
    await until(() => attempts.length === 3);
    dispatcher.wake('webhook hanging');
    dispatcher.wake('webhook fine');
    await until(() => attempts.some(({ endpoint }) => endpoint === 'webhook fine'), 400);
    await dispatcher.stop();
  });

  it('keeps to the rate of an endpoint, and goes on by itself', async () => {
    const { dispatcher, attempts } = dispatcherOver({
      queues: { 'webhook a': 30 },
      limits: { inFlight: 8, perSecond: 20 },
      concurrency: 8,
      ms: () => 1,
    });
    dispatcher.wake('webhook a');
    await until(() => attempts.length === 30);
    // A second's worth at once, then one every 50 ms.
    expect(attempts[29]!.at - attempts[0]!.at).to.be.within(480, 1_500);
    await dispatcher.stop();
  });

  it('has room for others while one endpoint hangs, and waits for what is under way when it stops', async () => {
    const queues = { 'webhook hanging': 100, 'webhook fine': 20 };
    const ms = (endpoint: string): number => (endpoint === 'webhook fine' ? 1 : 1_000);
    const { dispatcher, attempts } = dispatcherOver({ queues, limits: { inFlight: 2, perSecond: 1_000 }, concurrency: 3, ms });
    for (let i = 0; i < 50; i++) void dispatcher.offer('webhook hanging', `${i}`);
    dispatcher.wake('webhook fine');
    await until(() => attempts.filter(({ endpoint }) => endpoint === 'webhook fine').length === 20, 800);
    await until(() => dispatcher.inFlight === 2, 100);
    await dispatcher.stop();
    expect(dispatcher.inFlight).to.equal(0);
    expect(attempts.length).to.equal(22);
  });
});

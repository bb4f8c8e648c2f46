import { openJobQueue, startJobWorker, type JobQueue, type JobWorker } from '../../pipeline/clients/bullmq.ts';
import { closeRedis, openQueueRedis, openRedis, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { channelNames, type ChannelName } from './options.ts';
import type { ReadyJob } from './plan-store.ts';

/** What a queue carries of a job. */
interface JobData {
  readonly endpoint: string;
}

export interface QueuesParts {
  readonly redisUrl: string;
  /** Of all keys in Redis. */
  readonly prefix: string;
  readonly concurrency: number;
  readonly log: Logger;
  /** Called for each job that one of the queues hands to this process. */
  readonly work: (endpoint: string, jobId: string) => Promise<void>;
}

/** How long Redis may take to accept jobs before they go on without it. */
const addMs = 1_000;
/** How long a stop waits for Redis. */
const closeMs = 2_000;

/**
 * One BullMQ queue a channel: they spread jobs over the processes that deliver, in milliseconds. Losing them loses nothing;
 * PostgreSQL knows every job, and what no queue hands out is found there.
 */
export class Queues {
  readonly #queues = new Map<ChannelName, JobQueue<JobData>>();
  readonly #workers: readonly JobWorker[];
  readonly #redis: RedisClient;
  readonly #workerRedis: RedisClient;

  constructor({ redisUrl, prefix, concurrency, log, work }: QueuesParts) {
    this.#redis = openRedis(redisUrl, log);
    this.#workerRedis = openQueueRedis(redisUrl, log);
    const common = { prefix, log };
    for (const channel of channelNames)
      this.#queues.set(channel, openJobQueue<JobData>({ ...common, name: `hw-${channel}`, redis: this.#redis }));
    this.#workers = channelNames.map((channel) =>
      startJobWorker<JobData>({
        ...common,
        name: `hw-${channel}`,
        redis: this.#workerRedis,
        concurrency,
        work: ({ id, data }) => work(data.endpoint, id),
      }),
    );
  }

  /** Rejects when Redis does not take them; some may have been taken nevertheless. */
  async add(jobs: readonly ReadyJob[]): Promise<void> {
    const adding = [...this.#queues].flatMap(([channel, queue]) => {
      const own = jobs.filter((job) => job.channel === channel);
      return own.length === 0 ? [] : [queue.add(own.map(({ job_id, endpoint }) => ({ id: job_id, data: { endpoint } })))];
    });
    await within(addMs, Promise.all(adding));
  }

  /** Takes no more jobs, and closes when those begun have ended; without Redis at once. */
  async close(): Promise<void> {
    const closing = Promise.all([
      ...this.#workers.map((worker) => worker.close()),
      ...[...this.#queues.values()].map((queue) => queue.close()),
    ]);
    await within(closeMs, closing).catch(() => undefined);
    closeRedis(this.#workerRedis);
    closeRedis(this.#redis);
    await within(closeMs, closing).catch(() => undefined);
  }
}

async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Redis has not answered within ${ms / 1_000} s`)), ms);
  });
  promise.catch(() => undefined);
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

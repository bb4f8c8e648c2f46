import { Queue, Worker } from 'bullmq';
import type { Logger } from '../runtime/logging.ts';
import { HeadwaterError, messageOf } from '../runtime/errors.ts';
import type { RedisClient } from './redis.ts';

/** A job as the queue carries it. `id`: no `:` and not a whole number; one that the queue holds already is not added again. */
export interface QueuedJob<Data> {
  readonly id: string;
  readonly data: Data;
}

/** The writing end of a BullMQ queue. What it holds may be lost with Redis at any moment: the truth is kept elsewhere. */
export interface JobQueue<Data> {
  /** Rejects when Redis is away. */
  add(jobs: readonly QueuedJob<Data>[]): Promise<void>;
  close(): Promise<void>;
}

export interface JobQueueOptions {
  readonly name: string;
  /** Of all keys; with a hash tag, so that one script may touch them all on a cluster. */
  readonly prefix: string;
  readonly redis: RedisClient;
  readonly log: Logger;
}

/** Jobs that are done leave no trace; one that failed is none: what became of it is kept elsewhere, too. */
const jobOptions = { removeOnComplete: true, removeOnFail: true };

/**
 * Opens a queue on a client that fails at once while Redis is away. The client stays the caller's. A BullMQ queue that was made
 * without Redis, or that met its end while it was made, never works: so it is made when there is something to add, and again after
 * each failure.
 */
export function openJobQueue<Data>({ name, prefix, redis, log }: JobQueueOptions): JobQueue<Data> {
  let queue: Queue | undefined;
  const open = (): Queue => {
    const made = new Queue(name, { prefix, connection: redis, defaultJobOptions: jobOptions });
    made.on('error', (error) => log.debug({ error: messageOf(error) }, `${name}: queue`));
    return made;
  };
  const close = async (): Promise<void> => {
    const old = queue;
    queue = undefined;
    await old?.close().catch((error: unknown) => log.debug({ error: messageOf(error) }, `${name}: queue`));
  };
  return {
    async add(jobs) {
      if (redis.status !== 'ready') throw new HeadwaterError('redis_away', 'Redis is not available', { reaction: 'retry' });
      try {
        await (queue ??= open()).addBulk(jobs.map(({ id, data }) => ({ name: 'deliver', data, opts: { jobId: id } })));
      } catch (error) {
        await close();
        throw error;
      }
    },
    close,
  };
}

export interface JobWorkerOptions<Data> extends JobQueueOptions {
  /** Most jobs at once. */
  readonly concurrency: number;
  /** Works on a job; the queue holds it until then. Must not reject. */
  readonly work: (job: QueuedJob<Data>) => Promise<void>;
}

/** The reading end of a queue. */
export interface JobWorker {
  /** Takes no more jobs, waits until those begun are done, and closes. */
  close(): Promise<void>;
}

/**
 * Works on a queue's jobs until closed. A process that dies leaves its jobs to another one after 30 s.
 * @param options `redis`: a client that waits for Redis (`openQueueRedis`); it stays the caller's
 */
export function startJobWorker<Data>(options: JobWorkerOptions<Data>): JobWorker {
  const { name, prefix, redis, log, concurrency, work } = options;
  const worker = new Worker<Data, void>(name, async (job) => work({ id: job.id!, data: job.data }), {
    prefix,
    connection: redis,
    concurrency,
    drainDelay: 5,
    // Whatever became of a job that was begun twice already is known elsewhere.
    maxStalledCount: 1_000,
    runRetryDelay: 1_000,
    removeOnComplete: { count: 0 },
    removeOnFail: { count: 0 },
  });
  // A job that vanished with Redis while it was worked on is said here, too: nothing to do.
  worker.on('error', (error) => log.debug({ error: messageOf(error) }, `${name}: worker`));
  return { close: () => worker.close() };
}

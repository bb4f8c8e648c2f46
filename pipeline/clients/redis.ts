import { createHash } from 'node:crypto';
import { Redis } from 'ioredis';
import { backoffMs, untilItWorks } from '../runtime/backoff.ts';
import { HeadwaterError, messageOf, refused, usage } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { withoutSecrets } from '../runtime/without-secrets.ts';

export type RedisClient = Redis;

/** Hash fields in one answer of several, shebang scripts and `PEXPIRE … NX` are all of 7; nothing older is tested. */
const oldestMajor = 7;

export interface RedisOptions {
  /** How long one command may take before it counts as failed (ms); whether it was carried out is then unknown. */
  readonly commandTimeoutMs?: number;
}

/**
 * A client that connects in the background and reconnects for ever, with backoff and jitter. Commands fail at once while
 * there is no connection, and those under way fail when it breaks: the caller knows whether to try again, the client does not.
 */
export function openRedis(url: string, log: Logger, options: RedisOptions = {}): RedisClient {
  const client = new Redis(url, {
    connectionName: 'headwater',
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    commandTimeout: options.commandTimeoutMs ?? 10_000,
    connectTimeout: 5_000,
    keepAlive: 5_000,
    retryStrategy: (times) => 20 + backoffMs(times, { capMs: 2_000 }),
    // A former primary: the name now leads elsewhere.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  });
  let away = false;
  client.on('error', (error: unknown) => {
    if (!away) log.warn({ error: messageOf(error) }, `Redis at ${withoutSecrets(url)} is not available, trying again until it is`);
    away = true;
  });
  client.on('ready', () => {
    if (away) log.info('Redis is back');
    away = false;
  });
  return client;
}

/**
 * A client for a worker of a job queue: its commands, and reads that block, wait for Redis however long that takes, so the
 * worker neither spins nor fails. Where something must be said of Redis, another client says it.
 */
export function openQueueRedis(url: string, log: Logger): RedisClient {
  const client = new Redis(url, {
    connectionName: 'headwater',
    maxRetriesPerRequest: null,
    connectTimeout: 5_000,
    keepAlive: 5_000,
    retryStrategy: (times) => 20 + backoffMs(times, { capMs: 2_000 }),
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  });
  client.on('error', (error: unknown) => log.debug({ error: messageOf(error) }, 'Redis connection of a queue'));
  return client;
}

/**
 * Connects, waiting for as long as it takes, and checks that the server can hold state.
 * @throws HeadwaterError `redis_unauthorized` (usage), `redis_too_old` or `redis_evicts` (refused); the signal's reason when it fires first
 */
export async function connectRedis(
  url: string,
  log: Logger,
  options: RedisOptions & { readonly signal?: AbortSignal } = {},
): Promise<RedisClient> {
  const signal = options.signal ?? new AbortController().signal;
  const client = openRedis(url, log, options);
  try {
    await untilItWorks(
      'Redis',
      async () => {
        await untilReady(client, url, signal);
        requireFit(parseInfo(await client.info('server')), parseInfo(await client.info('memory')), withoutSecrets(url));
      },
      { signal, log },
    );
    return client;
  } catch (error) {
    client.disconnect();
    throw error;
  }
}

/** Closes at once; commands under way fail. */
export function closeRedis(client: RedisClient): void {
  client.disconnect();
}

/** Resolves when the client has a connection; rejects when the signal fires or the server refuses to let us in. */
function untilReady(client: RedisClient, url: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (outcome: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      client.off('ready', onReady).off('error', onError);
      outcome();
    };
    const onReady = (): void => settle(resolve);
    const onAbort = (): void => settle(() => reject(signal.reason as Error));
    const onError = (error: unknown): void => {
      const message = messageOf(error);
      if (!/WRONGPASS|NOAUTH|NOPERM|invalid password/.test(message)) return;
      const cause = usage(
        'redis_unauthorized',
        `Redis at ${withoutSecrets(url)} refuses the user or password: ${message}`,
        'correct REDIS_URL: redis://user:password@host:port',
      );
      settle(() => reject(cause));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    client.on('ready', onReady).on('error', onError);
    if (signal.aborted) onAbort();
    else if (client.status === 'ready') onReady();
  });
}

function parseInfo(text: string): ReadonlyMap<string, string> {
  const lines = text.split('\r\n').filter((line) => line.includes(':'));
  return new Map(lines.map((line): [string, string] => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]));
}

/** INFO, not CONFIG: hosted services commonly forbid the latter. */
function requireFit(server: ReadonlyMap<string, string>, memory: ReadonlyMap<string, string>, where: string): void {
  const version = server.get('redis_version') ?? '0';
  if (!(Number.parseInt(version, 10) >= oldestMajor))
    throw refused(
      'redis_too_old',
      `Redis at ${where} is version ${version}; ${oldestMajor}.0 or newer is needed`,
      'upgrade it, or unset REDIS_URL to use a local one',
    );
  const policy = memory.get('maxmemory_policy') ?? 'noeviction';
  if (Number(memory.get('maxmemory') ?? 0) > 0 && policy !== 'noeviction')
    throw refused(
      'redis_evicts',
      `Redis at ${where} drops keys when it is full (maxmemory-policy ${policy}), which would lose state silently`,
      'set maxmemory-policy noeviction there, or give Headwater a Redis of its own in REDIS_URL',
    );
}

/** What Redis answers while it cannot answer yet, or no longer: another one may soon. */
const notNow = /^(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|UNBLOCKED)/;

/**
 * Asks Redis until it has answered, however long it is away: for what may be asked twice, since an answer can be lost. An error that it answers ends it at once, and so do errors of
 * ours.
 */
export async function untilRedisAnswers<T>(ask: () => Promise<T>, options: { signal: AbortSignal; log: Logger }): Promise<T> {
  const answer = await untilItWorks(
    'Redis',
    async () => {
      try {
        return { value: await ask() };
      } catch (error) {
        const isAnswer = error instanceof Error && error.name === 'ReplyError' && !notNow.test(messageOf(error));
        if (isAnswer || error instanceof HeadwaterError) return { error };
        throw error;
      }
    },
    options,
  );
  if ('error' in answer) throw answer.error;
  return answer.value;
}

/** A Lua script, sent by its hash and in full only when the server does not know it (yet, or after a restart). */
export class RedisScript {
  readonly #lua: string;
  readonly #sha: string;

  constructor(lua: string) {
    this.#lua = lua;
    this.#sha = createHash('sha1').update(lua).digest('hex');
  }

  /** Runs it; strings in the answer are Buffers. */
  async run(client: RedisClient, keys: readonly string[], args: readonly (string | number | Buffer)[]): Promise<unknown> {
    // As lists: so many arguments of a function would not fit on its stack.
    try {
      return await client.callBuffer('EVALSHA', [this.#sha, keys.length, ...keys, ...args]);
    } catch (error) {
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error;
      return client.callBuffer('EVAL', [this.#lua, keys.length, ...keys, ...args]);
    }
  }
}

/** An answer of the store that is not what its script returns. */
export function unexpectedAnswer(what: string, answer: unknown): HeadwaterError {
  return new HeadwaterError('redis_answer', `unexpected answer of Redis to ${what}: ${typeof answer}`, { reaction: 'retry' });
}

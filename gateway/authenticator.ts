import { createHash } from 'node:crypto';
import type { LogEvent } from '../pipeline/log/event-log.ts';
import type { ApiKey, KeyStore } from '../pipeline/keys/key-store.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import type { Health } from '../pipeline/runtime/health.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { parse } from './channels.ts';

/** Who it is, or why that cannot be said: `overload` says nothing of the key, only that it cannot be looked up now. */
export type Authentication =
  | { readonly ok: true; readonly key: ApiKey }
  | { readonly ok: false; readonly code: 'unauthorized' | 'overload'; readonly message: string };

interface Cached {
  readonly key: ApiKey;
  readonly at: number;
}

const cacheMs = 30_000;
const cacheSize = 10_000;
const lookupTimeoutMs = 4_000;
const unauthorized = (message: string): Authentication => ({ ok: false, code: 'unauthorized', message });

/**
 * Authentication by API key. Keys that were found are kept for half a minute, and longer while the store cannot be asked;
 * a change of a key that comes along in the log ends that at once.
 */
export class Authenticator {
  readonly #store: KeyStore;
  readonly #log: Logger;
  readonly #health: Health;
  readonly #changes: string;
  readonly #cache = new Map<string, Cached>();
  /** Counts changes of keys, so that an answer from before a change is not kept. */
  #generation = 0;

  /** @param subject first token of the log's subjects */
  constructor(store: KeyStore, subject: string, log: Logger, health: Health) {
    this.#store = store;
    this.#log = log;
    this.#health = health;
    this.#changes = `${subject}.headwater.api_keys.`;
  }

  async authenticate(apiKey: string): Promise<Authentication> {
    const hash = createHash('sha256').update(apiKey, 'utf8').digest('hex');
    const cached = this.#cache.get(hash);
    if (cached && Date.now() - cached.at < cacheMs) return judge(cached.key);
    const generation = this.#generation;
    try {
      const key = await withTimeout(this.#store.find(hash), lookupTimeoutMs);
      this.#health.report('api keys', true, '', false);
      if (!key) {
        this.#cache.delete(hash);
        return unauthorized('the key is unknown');
      }
      if (generation === this.#generation) this.#keep(hash, key);
      return judge(key);
    } catch (error) {
      this.#health.report('api keys', false, messageOf(error), false);
      if (cached && this.#cache.get(hash) === cached) return judge(cached.key);
      this.#log.warn({ error: messageOf(error) }, 'API keys cannot be looked up');
      return { ok: false, code: 'overload', message: 'the key cannot be looked up now, try again' };
    }
  }

  /** Forgets the key that this event changes. */
  observe({ subject, data }: LogEvent): void {
    if (!subject.startsWith(this.#changes)) return;
    this.#generation++;
    const event = parse(data);
    const ids = new Set(
      [event?.['after'], event?.['before'], event?.['key']]
        .map((row) => (row as { id?: unknown } | undefined)?.id)
        .filter((id) => id !== undefined),
    );
    if (ids.size === 0) return this.#cache.clear();
    for (const [hash, { key }] of this.#cache) if (ids.has(key.keyId)) this.#cache.delete(hash);
  }

  #keep(hash: string, key: ApiKey): void {
    this.#cache.delete(hash);
    if (this.#cache.size >= cacheSize) this.#cache.delete(this.#cache.keys().next().value!);
    this.#cache.set(hash, { key, at: Date.now() });
  }
}

function judge(key: ApiKey): Authentication {
  if (key.revokedAt !== undefined) return unauthorized('the key has been revoked');
  if (key.expiresAt !== undefined && key.expiresAt <= Date.now()) return unauthorized('the key has expired');
  return { ok: true, key };
}

/** The key in an `Authorization: Bearer` header. */
export function bearerOf(authorization: string | undefined): string | undefined {
  return /^Bearer +([^\s]{1,1024})$/i.exec(authorization ?? '')?.[1];
}

async function withTimeout<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

import type { RedisClient } from '../../../pipeline/clients/redis.ts';
import { HeadwaterError, messageOf } from '../../../pipeline/runtime/errors.ts';
import { RequestFault } from '../../../pipeline/runtime/request-fault.ts';
import type { Definition } from '../model.ts';
import { registryKey } from '../store/keys.ts';
import { Registry, type Served } from '../store/registry.ts';
import { AggregateView, Moved } from './view.ts';

const mostAttempts = 3;

/** Reads aggregates from Redis. Rejects with a HeadwaterError whose reaction is `retry` while it is away, or an aggregate is being built. */
export class AggregateReader {
  readonly #client: RedisClient;
  /** The definitions read last. Each reading says by itself when one of them is served no more. */
  readonly #views = new Map<string, AggregateView>();

  constructor(client: RedisClient) {
    this.#client = client;
  }

  /** The definitions that are served, by name. */
  async definitions(): Promise<readonly Definition[]> {
    const entries = await asked(new Registry(this.#client).entries());
    return [...entries.values()].map(({ definition }) => definition).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Works with the definition that is served under a name; anew, when another one takes its place meanwhile. Undefined when there is none. */
  async use<T>(name: string, work: (view: AggregateView) => Promise<T>): Promise<T | undefined> {
    let view = this.#views.get(name) ?? this.#keep(name, (await asked(this.#client.hget(registryKey, name))) ?? '');
    for (let attempt = 1; view; attempt++) {
      try {
        return await work(view);
      } catch (error) {
        const entry = error instanceof Moved ? error.entry : await this.#newer(name, view, error);
        if (entry === undefined) throw error;
        view = this.#keep(name, entry);
        if (attempt >= mostAttempts)
          throw new HeadwaterError('aggregate_changing', 'the definition changes all the time', { reaction: 'retry' });
      }
    }
    return undefined;
  }

  /** A request that a definition does not allow may be right by the one that is served by now: its entry, if there is another. */
  async #newer(name: string, view: AggregateView, error: unknown): Promise<string | undefined> {
    if (!(error instanceof RequestFault)) return undefined;
    const entry = (await asked(this.#client.hget(registryKey, name))) ?? '';
    return view.isOf(entry) ? undefined : entry;
  }

  #keep(name: string, entry: string): AggregateView | undefined {
    this.#views.delete(name);
    if (entry === '') return undefined;
    const { definition } = JSON.parse(entry) as Served;
    const view = new AggregateView(this.#client, definition, entry);
    this.#views.set(name, view);
    return view;
  }
}

async function asked<T>(answer: Promise<T>): Promise<T> {
  return answer.catch((error: unknown) => {
    throw new HeadwaterError('redis_unavailable', `Redis cannot be read: ${messageOf(error)}`, { reaction: 'retry', cause: error });
  });
}

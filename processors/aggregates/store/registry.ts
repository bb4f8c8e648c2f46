import { RedisScript, type RedisClient } from '../../../pipeline/clients/redis.ts';
import type { Definition } from '../model.ts';
import { namespaceOf, namespacesKey, registryKey } from './keys.ts';

/** A definition that is read from, as the registry has it. */
export interface Served {
  readonly hash: string;
  readonly definition: Definition;
}

/** An entry with its text: `exchange` wants it back. */
export interface Entry extends Served {
  readonly text: string;
}

/** A definition, as its namespace names it. */
export type Namespace = Pick<Definition, 'name' | 'hash'>;

/** What the offset and the lease of each namespace are called. */
export const processorName = 'aggregates';

/** Set of namespaces whose removal has begun. */
const condemnedKey = '{hw}:agg:condemned';

/** KEYS: registry; ARGV: name, entry as it is expected ('' for none), new entry ('' for none). */
const exchangeScript = new RedisScript(`#!lua
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1`);

/** What is served, by name, and the namespaces that there are. */
export class Registry {
  readonly #client: RedisClient;

  constructor(client: RedisClient) {
    this.#client = client;
  }

  async entries(): Promise<ReadonlyMap<string, Entry>> {
    const entries = Object.entries(await this.#client.hgetall(registryKey));
    return new Map(entries.map(([name, text]) => [name, { ...(JSON.parse(text) as Served), text }]));
  }

  /** Puts a definition in the place of an entry, or of none; without a definition, takes the entry out. False when another one is there by now. */
  async exchange(name: string, expected: string | undefined, definition: Definition | undefined): Promise<boolean> {
    const text = definition ? entryText(definition) : '';
    return (await exchangeScript.run(this.#client, [registryKey], [name, expected ?? '', text])) === 1;
  }

  /** Names a namespace, so that it is found when nobody wants it any more. */
  async announce({ name, hash }: Namespace): Promise<void> {
    await this.#client.sadd(namespacesKey, `${name}:${hash}`);
  }

  /** Every namespace that there may be something in. */
  async namespaces(): Promise<readonly Namespace[]> {
    const members = await this.#client.smembers(namespacesKey);
    return members.map((member) => ({ name: member.slice(0, member.indexOf(':')), hash: member.slice(member.indexOf(':') + 1) }));
  }

  /** Is an instance at work in it? */
  async isLeased({ name, hash }: Namespace): Promise<boolean> {
    return (await this.#client.exists(namespaceOf(name, hash).lease(processorName))) === 1;
  }

  /** Does it stand beside what is served, for a rebuild or since one? */
  async isKept({ name, hash }: Namespace): Promise<boolean> {
    return (await this.#client.hget(`{hw}:rebuild:${processorName}.${name}`, 'hash')) === hash;
  }

  /** From now on what is in it is not to be trusted, until it is forgotten. */
  async condemn({ name, hash }: Namespace): Promise<void> {
    await this.#client.sadd(condemnedKey, `${name}:${hash}`);
  }

  /** Has its removal begun, and not come to an end? */
  async isCondemned({ name, hash }: Namespace): Promise<boolean> {
    return (await this.#client.sismember(condemnedKey, `${name}:${hash}`)) === 1;
  }

  /** It has been removed. */
  async forget({ name, hash }: Namespace): Promise<void> {
    await this.#client.srem(namespacesKey, `${name}:${hash}`);
    await this.#client.srem(condemnedKey, `${name}:${hash}`);
  }
}

/** The entry of a definition. */
export function entryText(definition: Definition): string {
  return JSON.stringify({ hash: definition.hash, definition } satisfies Served);
}

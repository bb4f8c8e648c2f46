import type { RedisClient } from '../pipeline/clients/redis.ts';
import { namespaceOf } from '../processors/aggregates/store/keys.ts';
import { processorName, Registry } from '../processors/aggregates/store/registry.ts';
import type { StoredOffset } from './status.ts';

/** The offset of every aggregate that is served, and of those that are being built. */
export async function aggregateOffsets(redis: RedisClient): Promise<StoredOffset[]> {
  const registry = new Registry(redis);
  const [entries, namespaces] = [await registry.entries(), await registry.namespaces()];
  const offsets = namespaces.map(async (namespace): Promise<StoredOffset | undefined> => {
    const { name, hash } = namespace;
    const served = entries.get(name)?.hash === hash;
    if (!served && !(await registry.isLeased(namespace))) return undefined;
    const [seq, epoch] = await redis.hmget(namespaceOf(name, hash).offset(processorName), 'seq', 'epoch');
    if (seq == null || epoch == null) return undefined;
    return { name: `${processorName}.${name}`, seq: Number(seq), epoch, ...(!served && { building: true }) };
  });
  return (await Promise.all(offsets)).filter((offset) => offset !== undefined);
}

import type { RedisClient } from '../../../../pipeline/clients/redis.ts';
import { Distribution } from '../../../../processors/aggregates/engine/distribution.ts';
import type { Definition, WindowRecord } from '../../../../processors/aggregates/model.ts';
import { aggregateKeys, namespaceOf } from '../../../../processors/aggregates/store/keys.ts';
import { decodeRecord } from '../../../../processors/aggregates/store/record.ts';

/** A window as Redis holds it. */
export interface StoredWindow extends WindowRecord {
  readonly level: string;
  readonly group: string;
  readonly index: number;
  /** By percent; undefined of definitions without percentiles. */
  readonly percentiles: Readonly<Record<number, string | undefined>> | undefined;
}

/** Every window of a definition, by level, group and index. */
export async function storedWindows(client: RedisClient, definition: Definition): Promise<StoredWindow[]> {
  const { prefix } = namespaceOf(definition.name, definition.hash);
  const windows: StoredWindow[] = [];
  for (const group of await client.zrange(aggregateKeys.groups(prefix), '0', '-1')) {
    const records = await client.hgetall(aggregateKeys.windows(prefix, group));
    let listed = 0;
    for (const { text: level } of definition.levels) {
      const indexes = await client.zrange(aggregateKeys.indexes(prefix, level, group), '0', '-1');
      listed += indexes.length;
      for (const index of indexes.map(Number)) {
        const record = decodeRecord(records[`${level}:${index}`]!);
        const counts = async (key: string): Promise<Map<string, number>> =>
          new Map(Object.entries(await client.hgetall(key)).map(([name, count]) => [name, Number(count)]));
        const distribution = new Distribution();
        if (definition.percentiles) {
          if (record.sketched) distribution.addBuckets(await counts(aggregateKeys.buckets(prefix, level, index, group)));
          else distribution.addValues(await counts(aggregateKeys.values(prefix, level, index, group)));
        }
        const percentiles = Object.fromEntries([50, 90, 99].map((percent) => [percent, distribution.percentile(percent)]));
        windows.push({ ...record, level, group, index, percentiles: definition.percentiles ? percentiles : undefined });
      }
    }
    if (listed !== Object.keys(records).length) throw new Error(`the records of ${group} are not those that its indexes list`);
  }
  return windows;
}

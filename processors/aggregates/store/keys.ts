import { RedisKeys } from '../../../pipeline/runner/redis-keys.ts';

/** Which definition of each aggregate is served: hash, name → JSON of `Served`. */
export const registryKey = '{hw}:agg:registry';

/** Set: `<name>:<hash>` of every namespace that there may be something in. */
export const namespacesKey = '{hw}:agg:namespaces';

/**
 * The namespace of one definition. Its offset and lease are those of the processor `aggregates` there. Another definition
 * under the same name has another one, so that it is built beside the one that is served.
 */
export function namespaceOf(name: string, hash: string): RedisKeys {
  return new RedisKeys(`{hw}:agg:${name}:${hash}`);
}

/**
 * Names of the keys of a namespace. `group`: JSON array of the values of `by`, as events have them. `index`: which window of
 * its level; `level`: the text of its size. Everything changes in the same call as the offset.
 */
export const aggregateKeys = {
  /** Hash: `<level>:<index>` → record, see record.ts. */
  windows: (prefix: string, group: string) => `${prefix}:w:${group}`,
  /** Sorted set: member and score are the index of each window that has a record. */
  indexes: (prefix: string, level: string, group: string) => `${prefix}:i:${level}:${group}`,
  /** Hash: value as canonical decimal → how often the window holds it; only with percentiles, and until it is sketched. */
  values: (prefix: string, level: string, index: number, group: string) => `${prefix}:v:${level}:${index}:${group}`,
  /** Hash: bucket → count, once it is sketched. */
  buckets: (prefix: string, level: string, index: number, group: string) => `${prefix}:b:${level}:${index}:${group}`,
  /** Hash: point's id → JSON `[at, value, row]`; of `rows` only. */
  points: (prefix: string, index: number, group: string) => `${prefix}:p:${index}:${group}`,
  /** Hash: row → JSON `[group, at, point's id, value]`, what it contributes and where; of `rows` only. */
  rows: (prefix: string) => `${prefix}:rows`,
  /** Sorted set, all scores 0: every group that has a window. Of a group that is not in it there is nothing, whatever other keys say. */
  groups: (prefix: string) => `${prefix}:groups`,
  /** Sorted set: groups that a truncate has emptied, and whose other keys are still to be removed; further ones have a number behind it (`dropped:1`). */
  dropped: (prefix: string) => `${prefix}:dropped`,
  /**
   * List: `<number>:<level from 1>:<group>` of each `t:<number>:<level>:<group>`, which is what `indexes` was of an emptied group: of these windows there
   * may still be values, buckets and points. They are of nothing while the window has no record, and go before it has one again.
   */
  tossed: (prefix: string) => `${prefix}:tossed`,
  /** String: JSON of what the engine knows besides. */
  meta: (prefix: string) => `${prefix}:meta`,
  /** String: microseconds since 1970 up to which the log's clock has been folded; windows that begin longer ago than they are kept are as good as gone. */
  clock: (prefix: string) => `${prefix}:clock`,
  /** List: JSON `[start, end]`, microseconds between which commits are missing (of `changes` only): windows there may lack something. */
  gaps: (prefix: string) => `${prefix}:gaps`,
  /** String: the group after which the next sweep goes on, see commit.ts. */
  swept: (prefix: string) => `${prefix}:swept`,
  /** Sorted set: `<pane index>:<group>` → sequence of its last change; the newest ones only. */
  changed: (prefix: string) => `${prefix}:changed`,
  /** String: every change up to this sequence may be missing from `changed`. */
  forgotten: (prefix: string) => `${prefix}:forgotten`,
} as const;

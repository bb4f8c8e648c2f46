/**
 * Names of the keys in Redis. All share one hash tag, so that one atomic call may touch any of them, also on a cluster.
 * Another prefix is another namespace: a rebuild fills one beside the live one. It must contain a hash tag.
 */
export class RedisKeys {
  readonly prefix: string;

  constructor(prefix = '{hw}') {
    this.prefix = prefix;
  }

  /**
   * Hash `seq`, `epoch`, `from`: how far a processor has come, and the first sequence it has folded; `redriven`: the last redrive; `making`, of the
   * cache: another one after each flip of a rebuild; and a field `hole:<seq>` for each event that its state lacks.
   */
  offset(processor: string): string {
    return `${this.prefix}:offset:${processor}`;
  }

  /** Set of the processors whose offsets are in this namespace: finding them by a scan would take a minute in a large cache. */
  get processors(): string {
    return `${this.prefix}:processors`;
  }

  /** The owner's name, with the lease's remaining time as expiry. */
  lease(processor: string): string {
    return `${this.prefix}:lease:${processor}`;
  }
}

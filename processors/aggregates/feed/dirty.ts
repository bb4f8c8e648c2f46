import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Change } from '../read/pages.ts';

interface Entry {
  /** Everything that changed of the group up to here has been told. */
  since: Seq;
  /** Pane → sequence of its last change: what has not been told. */
  panes: Map<number, Seq>;
  toldAt: number;
}

/** A group that is to be told of. */
export interface Due {
  readonly group: string;
  readonly panes: ReadonlyMap<number, Seq>;
}

/** The groups that have changed since they were told of, and those that were told of so recently that they have to wait. */
export class Dirty {
  readonly #groups = new Map<string, Entry>();
  readonly #everyMs: number;

  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** @param since all changes up to there were known before this one */
  add({ group, pane, seq }: Change, since: Seq): void {
    const entry = this.#groups.get(group);
    if (!entry) this.#groups.set(group, { since, panes: new Map([[pane, seq]]), toldAt: -Infinity });
    else {
      if (entry.panes.size === 0) entry.since = since;
      entry.panes.set(pane, seq);
    }
  }

  /** The groups whose turn it is, those that have waited longest first. */
  due(now: number): readonly Due[] {
    const due: (Due & { readonly since: Seq })[] = [];
    for (const [group, { since, panes, toldAt }] of this.#groups) {
      if (now - toldAt < this.#everyMs) continue;
      if (panes.size > 0) due.push({ group, panes, since });
      else this.#groups.delete(group);
    }
    return due.sort((a, b) => a.since - b.since);
  }

  /** The group has been told of as it is now. */
  told(group: string, now: number): void {
    const entry = this.#groups.get(group);
    if (!entry) return;
    entry.panes = new Map();
    entry.toldAt = now;
  }

  /** `position`, or less: up to where all changes have been told. */
  passed(position: Seq): Seq {
    let seq = position;
    for (const { since, panes } of this.#groups.values()) if (panes.size > 0) seq = Math.min(seq, since);
    return seq;
  }

  clear(): void {
    this.#groups.clear();
  }
}

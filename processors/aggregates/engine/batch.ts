import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { AggregateEffects, EngineMeta, PaneChange, PointsChange, SealedEffects, WindowChange } from './effects.ts';
import type { Entry } from './memory.ts';
import type { Change, Window } from './window.ts';

/** The effects of a batch while it fills. */
export class Batch implements AggregateEffects {
  /** The last event that was applied. */
  last: Seq = 0;
  cleared: Seq | undefined;
  readonly #finish: () => EngineMeta;
  #changes: Change[] = [];
  #rows = new Map<string, Entry | undefined>();
  /** Points that go from panes that are kept no longer. */
  #gone: PointsChange[] = [];
  /** Panes that are kept no longer, while longer windows of theirs are. */
  #changed: PaneChange[] = [];
  #sealed: SealedEffects | undefined;

  /** @param finish brings all windows up to date, before they are read */
  constructor(finish: () => EngineMeta) {
    this.#finish = finish;
  }

  get sealed(): SealedEffects | undefined {
    return this.#sealed;
  }

  seal(): SealedEffects {
    return (this.#sealed ??= this.#make());
  }

  clear(seq: Seq): void {
    this.cleared = seq;
    this.#changes = [];
    this.#gone = [];
    this.#changed = [];
    this.#rows = new Map();
  }

  /** Notes that a window changes. */
  touch(window: Window): void {
    if (window.change) return;
    const change: Change = { window, values: undefined, buckets: undefined, anew: false, points: undefined };
    window.change = change;
    this.#changes.push(change);
  }

  setRow(row: string, entry: Entry | undefined): void {
    this.#rows.set(row, entry);
  }

  dropPoint(group: string, index: number, id: string): void {
    this.#gone.push({ group, index, points: new Map([[id, undefined]]) });
  }

  addChanged(pane: PaneChange): void {
    this.#changed.push(pane);
  }

  #make(): SealedEffects {
    const meta = this.#finish();
    const windows: WindowChange[] = [];
    const points: PointsChange[] = [];
    const changed = this.#changed;
    for (const change of this.#changes) {
      const { window } = change;
      window.change = undefined;
      const { level, index, count, revision, stored } = window;
      const group = window.group.text;
      if (change.points) points.push({ group, index, points: change.points });
      // It came and went within the batch.
      if (!stored && count === 0) continue;
      windows.push(toWindowChange(change));
      if (level === 0) changed.push({ group, index, seq: revision });
      window.stored = count > 0;
    }
    // A pane that is kept no longer does not come back: what was put into it before goes after that.
    points.push(...this.#gone);
    return { cleared: this.cleared, meta, windows, rows: this.#rows, points, changed };
  }
}

function toWindowChange({ window, values, buckets, anew }: Change): WindowChange {
  const { level, index, count, stored } = window;
  const group = window.group.text;
  if (count === 0) return { level, group, index, record: undefined, fresh: false, values: undefined, buckets: undefined, anew: false };
  return { level, group, index, record: window.toRecord(), fresh: !stored, values, buckets, anew };
}

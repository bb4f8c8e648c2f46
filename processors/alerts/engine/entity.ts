import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Micros } from '../model.ts';
import type { Episode } from './episode.ts';
import type { LiveRule } from './live-rule.ts';
import type { Series } from './series.ts';
import type { Stream } from './stream.ts';
import type { Timed } from './timers.ts';

/** A value that a rule may look back at, and when it was last told. */
export type EntitySeries = Series<Entity>;

/** What the rules of a stream know of one entity. `due`: when it may have been absent for as long as one of them asks. */
export class Entity implements Timed {
  readonly stream: Stream;
  /** Its values as one text, see `schemas/row-key.ts`. */
  readonly text: string;
  /** Column → value. */
  readonly key: Readonly<Record<string, unknown>>;
  due: Micros = Infinity;
  /** The entity's last event. */
  seq: Seq = 0;
  at: Micros = 0;
  /** By number of the stream's column: the sequence that its value is of, and the value; absent while unknown. */
  readonly seqs: Seq[] = [];
  readonly values: unknown[] = [];
  episodes: Map<LiveRule, Episode> | undefined = undefined;
  /** How many of them are of rules that ask whether nothing has come. */
  timedEpisodes = 0;
  /** By number of the stream's window. */
  series: (EntitySeries | undefined)[] | undefined = undefined;

  constructor(stream: Stream, text: string, key: Readonly<Record<string, unknown>>) {
    this.stream = stream;
    this.text = text;
    this.key = key;
  }
}

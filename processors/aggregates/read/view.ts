import type { RedisClient, RedisScript } from '../../../pipeline/clients/redis.ts';
import type { Seq } from '../../../pipeline/log/event-log.ts';
import { HeadwaterError, messageOf } from '../../../pipeline/runtime/errors.ts';
import type { Definition, Level, Micros, Sliding } from '../model.ts';
import { namespaceOf, registryKey } from '../store/keys.ts';
import { processorName } from '../store/registry.ts';
import { Answer, listOf, movedTo, piecesOf, textOf, windowOf, type Head, type LevelWindow } from './answer.ts';
import { emptyItemOf, itemOf, type AggregateItem } from './items.ts';
import type { Change, Changes, GroupState, LatestPage, LatestRequest, SeriesPage, SeriesRequest, SizedItem, Stretch } from './pages.ts';
import { changesScript, latestScript, seriesScript, slidingScript, statesScript } from './scripts.ts';
import { slide } from './slide.ts';
import { mergeAll, Values, type Piece } from './summary.ts';

/** Records and values that one call may read, besides those of the first item: nobody else gets a turn meanwhile. */
const mostValues = 50_000;
/** Percentiles of sliding windows cost more. */
const mostSlidWithValues = 100;

/** The registry has another definition by now, or none (''). */
export class Moved extends Error {
  readonly entry: string;

  constructor(entry: string) {
    super('another definition is served');
    this.name = 'Moved';
    this.entry = entry;
  }
}

/** One definition, as it is served. Each method is one atomic reading, and rejects with `Moved` when the definition is served no more. */
export class AggregateView {
  readonly definition: Definition;
  readonly #client: RedisClient;
  readonly #entry: string;

  constructor(client: RedisClient, definition: Definition, entry: string) {
    this.#client = client;
    this.definition = definition;
    this.#entry = entry;
  }

  /** Is it of this entry of the registry? */
  isOf(entry: string): boolean {
    return entry === this.#entry;
  }

  async series(request: SeriesRequest): Promise<SeriesPage> {
    const { groups, size, from, to, limit } = request;
    return 'window' in size ? this.#tumbling(groups, size.window, from, to, limit) : this.#slid(groups, size.sliding, from, to, limit);
  }

  async #tumbling(
    groups: readonly string[],
    level: Level,
    from: Micros | undefined,
    to: Micros | undefined,
    limit: number,
  ): Promise<SeriesPage> {
    const { definition } = this;
    const { micros } = level;
    const number = definition.levels.indexOf(level) + 1;
    const answer = await this.#run(seriesScript, [...counted(groups), number, ...bounds(from, to, micros), limit]);
    const seq = seqOf(answer.head);
    const group = answer.text() ?? '';
    const keptFrom = (answer.number() ?? -Infinity) * micros;
    const windows = answer.list().map((reply) => windowOf(reply, definition));
    const more = answer.number() === 1;
    const items = windows.flatMap(({ index, piece }) => {
      const start = index * micros;
      return piece ? [{ start, item: this.#item(group, start, micros, [piece]) }] : [];
    });
    const last = windows.at(-1);
    return { seq, items, next: more && last ? (last.index + 1) * micros : undefined, keptFrom, missing: stretchesOf(answer.texts()) };
  }

  async #slid(
    groups: readonly string[],
    sliding: Sliding,
    from: Micros | undefined,
    to: Micros | undefined,
    limit: number,
  ): Promise<SeriesPage> {
    const { definition } = this;
    const pane = definition.levels[0]!.micros;
    const panes = sliding.micros / pane;
    const [first, last] = bounds(from, to, pane);
    const most = definition.percentiles ? Math.min(limit, mostSlidWithValues) : limit;
    const answer = await this.#run(slidingScript, [...counted(groups), panes, first + panes - 1, last + panes - 1, most]);
    const seq = seqOf(answer.head);
    const group = answer.text() ?? '';
    const keptFrom = (answer.number() ?? -Infinity) * pane;
    const [at, stop] = [answer.number() ?? 0, answer.number() ?? -1];
    const pieces = piecesOf(answer.list(), definition);
    const more = answer.number() === 1;
    const items = [...slide(pieces, at, stop, panes, definition.percentiles)].map(({ end, summary, distribution }) => {
      const start = (end + 1) * pane - sliding.micros;
      return { start, item: itemOf(definition, { group, start, micros: sliding.micros }, summary, distribution) };
    });
    return { seq, items, next: more ? (stop + 2) * pane - sliding.micros : undefined, keptFrom, missing: stretchesOf(answer.texts()) };
  }

  async latest({ groups, conditions, windows, sliding, after, limit }: LatestRequest): Promise<LatestPage> {
    const { definition } = this;
    const numbers = windows.map((level) => definition.levels.indexOf(level) + 1);
    const answer = await this.#run(latestScript, [
      ...counted(numbers),
      ...counted(this.#panesOf(sliding)),
      ...counted(groups),
      after ?? '',
      limit,
      conditions.length,
      ...conditions.flatMap(({ position, text }) => [
        position + 1,
        text ?? '',
        text === undefined ? 'null' : isNumber(text) ? 'number' : 'text',
      ]),
    ]);
    const seq = seqOf(answer.head);
    const next = answer.text();
    const found: GroupState[] = [];
    while (!answer.ended) {
      const [groupReply, windowReplies, pane, slid] = answer.list();
      const group = textOf(groupReply)!;
      const items = listOf(windowReplies).flatMap((reply) => this.#windowItem(group, windowOf(reply, definition)) ?? []);
      const slidItems = this.#slidItems(
        group,
        textOf(pane),
        listOf(slid).map((reply) => piecesOf(reply, definition)),
        sliding,
      );
      if (items.length + slidItems.length > 0) found.push({ group, windows: items, sliding: slidItems });
    }
    return { seq, groups: found, next };
  }

  /** The newest changes after a sequence, at most so many. */
  async changes(after: Seq, limit: number): Promise<Changes> {
    const answer = await this.#run(changesScript, [after, limit]);
    const forgotten = answer.number() ?? 0;
    const changes: Change[] = [];
    while (!answer.ended) changes.push({ pane: answer.number()!, group: answer.text()!, seq: answer.number()! });
    return { head: answer.head, forgotten, changes, complete: changes.length < limit };
  }

  /** The windows that contain these panes, and the newest sliding ones; of the first groups only, when there is much to read. */
  async states(
    wanted: ReadonlyMap<string, ReadonlyMap<number, Seq>>,
  ): Promise<{ readonly seq: Seq; readonly states: readonly GroupState[] }> {
    const { definition } = this;
    const { sliding } = definition;
    const groups = [...wanted].flatMap(([group, panes]) => [group, ...counted([...panes.keys()])]);
    const answer = await this.#run(statesScript, [...counted(this.#panesOf(sliding)), wanted.size, ...groups]);
    const states: GroupState[] = [];
    for (const [group, panes] of wanted) {
      if (answer.ended) break;
      const [windowReplies, pane, slid] = answer.list();
      const windows = listOf(windowReplies).flatMap((reply) => this.#windowItem(group, windowOf(reply, definition), panes) ?? []);
      const pieces = listOf(slid).map((reply) => piecesOf(reply, definition));
      states.push({ group, windows, sliding: this.#slidItems(group, textOf(pane), pieces, sliding) });
    }
    return { seq: seqOf(answer.head), states };
  }

  /** Undefined for sizes that only serve sliding windows. An empty window is told with the sequence of the last change in it. */
  #windowItem(group: string, { level, index, piece }: LevelWindow, changes?: ReadonlyMap<number, Seq>): SizedItem | undefined {
    const { text: size, micros } = level;
    if (!this.definition.windows.includes(size)) return undefined;
    const start = index * micros;
    if (piece) return { size, item: this.#item(group, start, micros, [piece]) };
    const panes = level.micros / this.definition.levels[0]!.micros;
    const revisions = [...(changes ?? [])].filter(([pane]) => Math.floor(pane / panes) === index).map(([, seq]) => seq);
    return { size, item: emptyItemOf(this.definition, { group, start, micros }, Math.max(0, ...revisions)) };
  }

  #slidItems(group: string, pane: string | undefined, pieces: readonly (readonly Piece[])[], sliding: readonly Sliding[]): SizedItem[] {
    if (pane === undefined) return [];
    const end = (Number(pane) + 1) * this.definition.levels[0]!.micros;
    return sliding.flatMap(({ text, micros }, i) => {
      const found = pieces[i] ?? [];
      return found.length > 0 ? [{ size: text, item: this.#item(group, end - micros, micros, found) }] : [];
    });
  }

  #item(group: string, start: Micros, micros: Micros, pieces: readonly Piece[]): AggregateItem {
    const values = this.definition.percentiles ? pieces.reduce((all, piece) => all.add(piece), new Values()) : undefined;
    return itemOf(this.definition, { group, start, micros }, mergeAll(pieces)!, values?.distribution());
  }

  #panesOf(sliding: readonly Sliding[]): readonly number[] {
    return sliding.map(({ micros }) => micros / this.definition.levels[0]!.micros);
  }

  async #run(script: RedisScript, args: readonly (string | number)[]): Promise<Answer> {
    const { name, hash, levels, percentiles } = this.definition;
    const keys = namespaceOf(name, hash);
    const common = [name, this.#entry, keys.prefix, percentiles ? '1' : '0', mostValues];
    const sizes = levels.flatMap(({ text, micros, keep }) => [text, micros, keep]);
    const reply = await script
      .run(this.#client, [registryKey, keys.offset(processorName)], [...common, levels.length, ...sizes, ...args])
      .catch((error: unknown) => {
        throw new HeadwaterError('redis_unavailable', `Redis cannot be read: ${messageOf(error)}`, { reaction: 'retry', cause: error });
      });
    const entry = movedTo(reply);
    if (entry !== undefined) throw new Moved(entry);
    return new Answer(reply);
  }
}

function seqOf({ seq }: Head): Seq {
  if (seq === undefined) throw new HeadwaterError('aggregate_building', 'the aggregate is being built', { reaction: 'retry' });
  return seq;
}

/** The first and the last index of windows that begin in the stretch. */
function bounds(from: Micros | undefined, to: Micros | undefined, micros: Micros): [number, number] {
  return [from === undefined ? -1e15 : Math.ceil(from / micros), to === undefined ? 1e15 : Math.ceil(to / micros) - 1];
}

function counted<T extends string | number>(list: readonly T[]): readonly (T | number)[] {
  return [list.length, ...list];
}

/** Could an event have the text as a JSON number? */
export function isNumber(text: string): boolean {
  return /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i.test(text);
}

function stretchesOf(texts: readonly string[]): readonly Stretch[] {
  return texts.map((text) => {
    const [start, end] = JSON.parse(text) as [number, number];
    return { start, end };
  });
}

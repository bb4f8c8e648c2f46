import type { Seq } from '../../pipeline/log/event-log.ts';
import type { PreparedQuery } from './model.ts';

/** What a request asks for. */
export interface Asked {
  /** The query as it came, with which `prepareQuery` begins. */
  readonly input: unknown;
  readonly minSeq: Seq | undefined;
}

/** A request that has been read, and the query it was found to be, for the table's version of then. */
export class Remembered {
  readonly asked: Asked;
  #query: PreparedQuery | undefined;

  constructor(asked: Asked) {
    this.asked = asked;
  }

  get query(): PreparedQuery | undefined {
    return this.#query;
  }

  set query(query: PreparedQuery) {
    const { sql, canonical } = query;
    this.#query = sql.text.length + canonical.length <= longestSql ? query : undefined;
  }
}

const most = 4_000;
const longest = 2_048;
/** Queries for many columns are made into much SQL: those are not remembered. */
const longestSql = 8_192;

/**
 * Requests that came before, by their text and owner, so that those which come again and again are read, checked and made into SQL once.
 * The longest unused are forgotten.
 */
export class PreparedQueries {
  readonly #remembered = new Map<string, Remembered>();

  /** @param read throws for what is no request: that is not remembered */
  recall(owner: string, text: string, read: () => Asked): Remembered {
    const name = `${owner.length}:${owner}${text}`;
    const known = this.#remembered.get(name);
    if (known) {
      this.#remembered.delete(name);
      this.#remembered.set(name, known);
      return known;
    }
    const remembered = new Remembered(read());
    if (name.length > longest) return remembered;
    if (this.#remembered.size >= most) this.#remembered.delete(this.#remembered.keys().next().value!);
    this.#remembered.set(name, remembered);
    return remembered;
  }
}

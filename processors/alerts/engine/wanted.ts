/** Where a rule is found in its stream: by a column and the texts that its value may have; undefined: it concerns every entity. */
export interface Anchor {
  readonly column: string;
  readonly values: readonly string[];
}

/** Counts the rules that want something of entities, so as to keep it only of those that it can be wanted of. */
export class Wanted {
  #always = 0;
  readonly #columns = new Map<string, Map<string, number>>();

  add(anchor: Anchor | undefined): void {
    this.#count(anchor, 1);
  }

  remove(anchor: Anchor | undefined): void {
    this.#count(anchor, -1);
  }

  get empty(): boolean {
    return this.#always === 0 && this.#columns.size === 0;
  }

  /**
   * Of the entity with these values? Only the columns of its key say so for as long as it lives.
   * @param textOf of a column of the key; undefined for other columns
   */
  of(textOf: (column: string) => string | undefined): boolean {
    if (this.#always > 0) return true;
    for (const [column, values] of this.#columns) {
      const text = textOf(column);
      if (text === undefined || values.has(text)) return true;
    }
    return false;
  }

  #count(anchor: Anchor | undefined, by: 1 | -1): void {
    if (!anchor) {
      this.#always += by;
      return;
    }
    const { column } = anchor;
    let values = this.#columns.get(column);
    if (!values) this.#columns.set(column, (values = new Map<string, number>()));
    for (const value of anchor.values) {
      const count = (values.get(value) ?? 0) + by;
      if (count > 0) values.set(value, count);
      else values.delete(value);
    }
    if (values.size === 0) this.#columns.delete(column);
  }
}

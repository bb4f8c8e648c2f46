import type { Position } from './pages.ts';

/** Conditions of a SELECT that all have to hold. Every value is a parameter; an undefined one asks for nothing. */
export class Where {
  readonly values: unknown[] = [];
  readonly #conditions: string[] = [];

  equal(column: string, value: string | boolean | undefined): this {
    return this.compare(column, '=', value);
  }

  /** @param type the value's, where it is not the parameter's own */
  compare(column: string, operator: '=' | '<' | '>=' | '>', value: string | boolean | undefined, type?: string): this {
    if (value !== undefined)
      this.#conditions.push(`${column} ${operator} ${this.#parameter(value)}${type === undefined ? '' : `::${type}`}`);
    return this;
  }

  /** Members of a jsonb object, by their text. */
  members(column: string, members: readonly (readonly [name: string, value: string])[]): this {
    for (const [name, value] of members) this.#conditions.push(`${column} ->> ${this.#parameter(name)}::text = ${this.#parameter(value)}`);
    return this;
  }

  /** What comes behind a position in the order of a time, ascending (`>`) or descending (`<`), and then of `id`. */
  after(column: string, operator: '<' | '>', position: Position | undefined): this {
    if (!position) return this;
    const [at, id] = [`${this.#parameter(position.at)}::timestamptz`, `${this.#parameter(position.id)}::uuid`];
    const inclusive = `${column} ${operator}= ${at}`;
    this.#conditions.push(`${inclusive} AND (${column} ${operator} ${at} OR id > ${id})`);
    return this;
  }

  /** `WHERE …`, or nothing. */
  get sql(): string {
    return this.#conditions.length === 0 ? '' : `WHERE ${this.#conditions.join(' AND ')}`;
  }

  #parameter(value: unknown): string {
    this.values.push(value);
    return `$${this.values.length}`;
  }
}

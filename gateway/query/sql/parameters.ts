/** The values of a statement. SQL text holds only places for them, each with its type, so that PostgreSQL reads it as nothing else. */
export class Parameters {
  readonly values: (string | number | boolean | readonly string[])[] = [];

  /** @param type one of `castTypes`, or a name in `pg_catalog` that stands in our own source */
  add(value: string | number | boolean | readonly string[], type: string): string {
    return `$${this.values.push(value)}::pg_catalog.${type}`;
  }
}

/** A row's primary key as an event has it. */
export type Key = Readonly<Record<string, unknown>>;

/** A row that got another key by an event that has only a part of it. */
export interface Moved {
  readonly key: Key;
  readonly xid: number;
}

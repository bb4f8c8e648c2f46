import { eachMember, type Range } from '../../../schemas/raw-json.ts';

/** Members of an event by which a value is missing or spelled otherwise. */
const lists = ['omitted', 'jsonNull'] as const;

/** An event's row in its bytes. */
interface RawRow {
  /** The Latin-1 view of the bytes: values are passed on as they are. */
  readonly view: string;
  readonly key: Range | undefined;
  /** By the raw text of the column's name. */
  readonly values: ReadonlyMap<string, string>;
  readonly omitted: ReadonlySet<string>;
  readonly jsonNull: ReadonlySet<string>;
}

/**
 * A `read` event of a row that has been changed since it was read: its values, with those that the newer events have.
 * @param read the event up to its last member, without the bracket that closes it
 * @param newer events of the row, oldest first, that have only the columns that changed
 * @param limit bytes that it may have; columns that find no room are named in `omitted`
 */
export function mergedRow(read: Buffer, newer: readonly Uint8Array[], limit: number): Buffer {
  const old = rawRow(`${read.toString('latin1')}}`);
  const events = newer.map((data) => rawRow(Buffer.from(data).toString('latin1')));
  const values = new Map(old.values);
  const omitted = new Set(old.omitted);
  const jsonNull = new Set(old.jsonNull);
  for (const event of events) {
    for (const [name, value] of event.values) {
      values.set(name, value);
      omitted.delete(name);
      jsonNull.delete(name);
    }
    for (const name of event.omitted) {
      values.delete(name);
      omitted.add(name);
      jsonNull.delete(name);
    }
    for (const name of event.jsonNull) jsonNull.add(name);
  }
  const last = events.at(-1)!;
  const head = old.view.slice(0, old.view.indexOf(',"key":{'));
  const key = last.view.slice(last.key!.start, last.key!.end);
  const inKey = new Set<string>();
  eachMember(key, 0, ({ name }) => inKey.add(name).size > 0);
  for (;;) {
    const after = [...values].map(([name, value]) => `"${name}":${value}`).join(',');
    const text = `${head},"key":${key},"after":{${after}}${named('omitted', omitted)}${named('jsonNull', jsonNull)}`;
    const largest = text.length <= limit ? undefined : largestOf(values, inKey);
    if (largest === undefined) return Buffer.from(text, 'latin1');
    values.delete(largest);
    omitted.add(largest);
    jsonNull.delete(largest);
  }
}

function largestOf(values: ReadonlyMap<string, string>, but: ReadonlySet<string>): string | undefined {
  let largest: string | undefined;
  for (const [name, value] of values)
    if (!but.has(name) && (largest === undefined || value.length > values.get(largest)!.length)) largest = name;
  return largest;
}

function named(member: string, names: ReadonlySet<string>): string {
  return names.size === 0 ? '' : `,"${member}":[${[...names].map((name) => `"${name}"`).join(',')}]`;
}

function rawRow(view: string): RawRow {
  const values = new Map<string, string>();
  const found: Record<(typeof lists)[number], Set<string>> = { omitted: new Set(), jsonNull: new Set() };
  let key: Range | undefined;
  eachMember(view, 0, (member) => {
    if (member.name === 'key') key = member;
    if (member.name === 'after')
      eachMember(view, member.start, ({ name, start, end }) => values.set(name, view.slice(start, end)).size > 0);
    const list = lists.find((name) => name === member.name);
    if (list) for (const name of namesIn(view.slice(member.start, member.end))) found[list].add(name);
    return true;
  });
  return { view, key, values, ...found };
}

/** The raw texts of the names in a list. */
function namesIn(list: string): readonly string[] {
  return [...list.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, name]) => name!);
}

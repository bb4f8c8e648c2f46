import { Ajv2020, type ErrorObject } from 'ajv/dist/2020.js';
import { isMap, isScalar, LineCounter, parseDocument, type Document } from 'yaml';
import { sizesOf } from './aggregate-sizes.ts';
import {
  alertsChannel,
  CatalogError,
  isExcluded,
  isSystemSchema,
  ownSchema,
  unnamedEntry,
  type Catalog,
  type TableEntry,
} from './catalog.ts';
import { catalogSchema, type CatalogAggregate, type CatalogFile, type CatalogTable } from './generated/catalog.ts';
import { catalogYaml } from './generated/catalog-yaml.ts';
import { suggestion } from './nearest.ts';

type Path = readonly string[];

/** Something wrong at a place of the document. */
interface Fault {
  readonly path: Path;
  readonly message: string;
}

/** How a kind of value is called to someone who writes YAML. */
const kinds: Readonly<Record<string, string>> = {
  object: 'a map (`{}` for none)',
  array: 'a list',
  string: 'text',
  boolean: 'true or false',
};

/** The types of events that are no rows. */
const reservedTypes: readonly string[] = ['schema', 'message', 'mark', 'tick'];

/** The DeFi catalogue that comes with Headwater (`schemas/catalog.yaml`), for its demo database. */
export function defiCatalog(): Catalog {
  return parseCatalog(catalogYaml, 'schemas/catalog.yaml');
}

/**
 * Reads a catalogue from YAML.
 * @param fileName only for the messages
 * @throws CatalogError with all faults at once
 */
export function parseCatalog(text: string, fileName: string): Catalog {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    const faults = document.errors.map((error) => `${fileName}:${lines.linePos(error.pos[0]).line}: ${error.message}`);
    throw new CatalogError(fileName, faults);
  }
  const file: unknown = toData(document, fileName) ?? {};
  const shapeFaults = checkShape(file);
  const faults = shapeFaults.length > 0 ? shapeFaults : checkMeaning(file as CatalogFile);
  if (faults.length > 0) {
    const placed = faults.map((fault) => ({ fault, line: lineOf(document, lines, fault.path) })).sort((a, b) => a.line - b.line);
    throw new CatalogError(fileName, [...new Set(placed.map(({ fault, line }) => describe(fault, fileName, line)))]);
  }
  return toCatalog(file as CatalogFile);
}

/** Aliases are resolved here, and one that expands without end is refused here. */
function toData(document: Document, fileName: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new CatalogError(fileName, [`${fileName}: ${error instanceof Error ? error.message : String(error)}`]);
  }
}

function toCatalog({ tables = {}, aggregates = {}, others = true, exclude = [] }: CatalogFile): Catalog {
  const entries = Object.entries(tables).map(([name, table]): [string, TableEntry] => [name, toEntry(name, table)]);
  return { tables: new Map(entries), aggregates, others, exclude };
}

function toEntry(name: string, { cache, ...given }: CatalogTable): TableEntry {
  return { ...unnamedEntry, channel: name, ...given, cache };
}

function checkShape(file: unknown): readonly Fault[] {
  // `strict: false`: a description beside `$ref` is fine in this draft.
  const ajv = new Ajv2020({ allErrors: true, verbose: true, strict: false });
  const validate = ajv.compile(catalogSchema);
  if (validate(file)) return [];
  return (validate.errors ?? []).map(toFault);
}

function toFault(error: ErrorObject): Fault {
  const path = error.instancePath.split('/').slice(1).map(unescapePointer);
  const params: Readonly<Record<string, unknown>> = error.params;
  switch (error.keyword) {
    case 'additionalProperties': {
      const key = String(params['additionalProperty']);
      const known = Object.keys((error.parentSchema?.['properties'] ?? {}) as object);
      return { path: [...path, key], message: `is not a known key${suggestion(key, known)}` };
    }
    case 'enum': {
      const allowed = (params['allowedValues'] as readonly unknown[]).map(String);
      return { path, message: `must be one of ${allowed.join(', ')}${suggestion(String(error.data), allowed)}` };
    }
    case 'pattern':
      return { path, message: patternMessage(path, error) };
    case 'propertyNames':
      return { path: [...path, String(params['propertyName'])], message: 'is not a usable name: letters, digits, _ and -, at most 64' };
    case 'type':
      return { path, message: `must be ${kinds[String(params['type'])] ?? String(params['type'])}` };
    default:
      return { path, message: error.message ?? 'is not valid' };
  }
}

function patternMessage(path: Path, error: ErrorObject): string {
  const value = JSON.stringify(error.data);
  const last = path.at(-1) ?? '';
  const parent = path.at(-2) ?? '';
  if (last === 'table' || parent === 'exclude') return `is ${value}, but tables are written <schema>.<table>`;
  if (parent === 'windows' || parent === 'sliding' || parent === 'retention')
    return `is ${value}, but must be a duration like 30s, 5m, 1h or 1d`;
  if (last === 'channel') return `is ${value}, but a channel has 1 to 128 characters, without white space and colons`;
  return `is ${value}, but must be a name of letters, digits, _, - and .`;
}

/** What the shape alone cannot say. */
function checkMeaning(file: CatalogFile): readonly Fault[] {
  const { tables = {}, aggregates = {}, exclude = [] } = file;
  const faults: Fault[] = [];
  for (const [name, table] of Object.entries(tables)) {
    const path = ['tables', name];
    const schema = name.slice(0, Math.max(0, name.indexOf('.')));
    if (schema === '' || schema.length === name.length - 1) faults.push({ path, message: 'is not a table name: write <schema>.<table>' });
    if (schema === ownSchema) faults.push({ path, message: `is one of Headwater's own tables, which are not configurable` });
    if (isSystemSchema(schema)) faults.push({ path, message: 'is a table of the system, and those are never captured' });
    if (isExcluded(exclude, name))
      faults.push({ path, message: 'is named here, and excluded by a pattern in exclude: take one of them out' });
    faults.push(...checkTable(path, table));
  }
  for (const [name, aggregate] of Object.entries(aggregates)) faults.push(...checkAggregate(['aggregates', name], aggregate, file));
  return faults;
}

function checkAggregate(
  path: Path,
  aggregate: CatalogAggregate,
  { tables = {}, others = true, exclude = [] }: CatalogFile,
): readonly Fault[] {
  const faults: Fault[] = [];
  const { table, value, functions } = aggregate;
  if (value === undefined && functions.some((fn) => fn !== 'count')) faults.push({ path, message: 'needs value: the column to aggregate' });
  if (!aggregate.windows && !aggregate.sliding) faults.push({ path, message: 'needs windows or sliding' });
  const schema = table.slice(0, table.indexOf('.'));
  const is = (what: string): void => void faults.push({ path: [...path, 'table'], message: `is ${table}, which is ${what}` });
  if (isExcluded(exclude, table)) is('excluded');
  else if (schema === ownSchema) is("one of Headwater's own tables");
  else if (isSystemSchema(schema)) is('a table of the system, and those are never captured');
  else if (!others && !Object.hasOwn(tables, table)) is(`not captured: others is false, and tables does not name it`);
  const hidden = (Object.hasOwn(tables, table) && tables[table]?.exclude) || [];
  for (const [place, columns] of Object.entries({ by: aggregate.by, value: [value], time: [aggregate.time] })) {
    for (const column of columns) {
      if (column !== undefined && hidden.includes(column))
        faults.push({ path: [...path, place], message: `is ${column}, which exclude keeps out of the log` });
    }
  }
  for (const fault of sizesOf(aggregate).faults) faults.push({ ...fault, path: [...path, ...fault.path] });
  return faults;
}

function checkTable(path: Path, { type, channel, filters = {}, exclude = [] }: CatalogTable): readonly Fault[] {
  const faults: Fault[] = [];
  if (type !== undefined && reservedTypes.includes(type))
    faults.push({ path: [...path, 'type'], message: `is ${type}, which events that are no rows have` });
  if (channel === alertsChannel)
    faults.push({ path: [...path, 'channel'], message: `is ${alertsChannel}, which belongs to the alert history` });
  for (const [field, column] of Object.entries(filters)) {
    if (exclude.includes(column))
      faults.push({ path: [...path, 'filters', field], message: `is ${column}, which exclude keeps out of the log` });
  }
  return faults;
}

function describe({ path, message }: Fault, fileName: string, line: number): string {
  const place = path.map((part, i) => (/^\d+$/u.test(part) ? `[${part}]` : i === 0 ? part : ` → ${part}`)).join('');
  return `${fileName}:${line}: ${place === '' ? 'the catalogue' : place} ${message}`;
}

/** The line of the node at the path, or of the nearest one around it that has a place. */
function lineOf(document: Document, lines: LineCounter, path: Path): number {
  for (let length = path.length; length > 0; length--) {
    const line = lines.linePos(offsetOf(document, path.slice(0, length)) ?? -1).line;
    if (line > 0) return line;
  }
  return 1;
}

/** Where the key of the last step stands, or the item when it is a list's. */
function offsetOf(document: Document, path: Path): number | undefined {
  const parent: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  const last = path.at(-1);
  if (isMap(parent)) {
    const pair = parent.items.find(({ key }) => isScalar(key) && String(key.value) === last);
    return isScalar(pair?.key) ? pair.key.range?.[0] : undefined;
  }
  const node: unknown = document.getIn(
    path.map((part) => (/^\d+$/u.test(part) ? Number(part) : part)),
    true,
  );
  return isScalar(node) || isMap(node) ? node.range?.[0] : undefined;
}

function unescapePointer(part: string): string {
  return part.replaceAll('~1', '/').replaceAll('~0', '~');
}

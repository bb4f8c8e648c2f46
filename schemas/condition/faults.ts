/** What is wrong with a part of a document, which `field` names: `when.and[1].value`. The message is a sentence without that name. */
export interface Fault {
  readonly field: string;
  readonly message: string;
}

/** A fault with the steps that lead to its place. */
export interface PlacedFault extends Fault {
  readonly path: Path;
}

/** Steps to a place in a document. */
export type Path = readonly (string | number)[];

export type Members = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `when.and[1].value`. */
export function fieldName(name: string, path: Path): string {
  return path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : text === '' ? step : `${text}.${step}`),
    name,
  );
}

/** A value as a message shows it: short. */
export function show(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(outermost(value, shownLength)) ?? typeof value;
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text;
}

const shownLength = 80;

/** What a message shows of a value: all that lies deeper or behind would be cut off, and very deep values overflow the stack. */
function outermost(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (depth === 0) return [];
  if (Array.isArray(value)) return value.slice(0, shownLength).map((item) => outermost(item, depth - 1));
  const entries = Object.entries(value).slice(0, shownLength);
  return Object.fromEntries(entries.map(([name, item]) => [name, outermost(item, depth - 1)]));
}

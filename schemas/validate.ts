import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { eventSchema } from './generated/event.ts';
import { framesSchema } from './generated/frames.ts';
import { restSchema } from './generated/rest.ts';

/** Judges a parsed JSON value: undefined if it is as the schema says, else what is wrong with it, in a sentence. */
export type Check = (value: unknown) => string | undefined;

/** One check a kind of message. */
export interface Validators {
  /** An event, as it is in the log. */
  readonly event: Check;
  /** A frame from a client, of any type. */
  readonly clientFrame: Check;
  /** A frame from the server, of any type. */
  readonly serverFrame: Check;
  /** The answer of `/v2/rows`. */
  readonly rowAnswer: Check;
  /** The body of an HTTP error. */
  readonly errorBody: Check;
}

/** Compiles the schemas; it takes some milliseconds, so a program does it once and hands the result on. */
export function createValidators(): Validators {
  // `strictTypes` and `strictRequired` object to what the draft allows: unions, and `required` apart from its properties.
  const ajv = new Ajv2020({ strictTypes: false, strictRequired: false });
  addFormats.default(ajv, ['date-time']);
  for (const schema of [eventSchema, framesSchema, restSchema]) ajv.addSchema(schema);
  const compiled = (schema: Readonly<Record<string, unknown>>, pointer = ''): ValidateFunction => {
    const validate = ajv.getSchema(`${String(schema['$id'])}${pointer}`);
    if (!validate) throw new Error(`no schema at ${pointer} in ${String(schema['$id'])}`);
    return validate;
  };
  const frames = (group: string): Check => {
    const names = frameNames(group);
    return byType(new Map(names.map((name) => [name, compiled(framesSchema, `#/$defs/${name}`)])));
  };
  return {
    event: checkEvent(compiled),
    clientFrame: frames('clientFrame'),
    serverFrame: frames('serverFrame'),
    rowAnswer: toCheck(compiled(restSchema, '#/$defs/rowAnswer')),
    errorBody: toCheck(compiled(restSchema, '#/$defs/errorBody')),
  };
}

type Compile = (schema: Readonly<Record<string, unknown>>, pointer?: string) => ValidateFunction;

/** Picks the one kind of event by `type`: the message of a `oneOf` would tell of all of them. */
function checkEvent(compiled: Compile): Check {
  const kinds = new Map(
    ['schema', 'message', 'mark', 'tick'].map((type) => [type, toCheck(compiled(eventSchema, `#/$defs/${type}Event`))]),
  );
  const row = toCheck(compiled(eventSchema, '#/$defs/rowEvent'));
  return (value) => (kinds.get(String(typeOf(value))) ?? row)(value);
}

function byType(validators: ReadonlyMap<string, ValidateFunction>): Check {
  const checks = new Map([...validators].map(([name, validate]) => [name, toCheck(validate)]));
  return (value) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'must be an object';
    const type = typeOf(value);
    if (typeof type !== 'string') return 'type must be a text';
    return (checks.get(type) ?? (() => `type is not one of ${[...checks.keys()].join(', ')}`))(value);
  };
}

function typeOf(value: unknown): unknown {
  return (value as { readonly type?: unknown } | null | undefined)?.type;
}

/** The frames that a group of the schema lists; each is named like its `type`. */
function frameNames(group: string): readonly string[] {
  const defs = framesSchema['$defs'] as Readonly<Record<string, { readonly oneOf?: readonly { readonly $ref: string }[] }>>;
  return (defs[group]?.oneOf ?? []).map(({ $ref }) => $ref.slice('#/$defs/'.length));
}

function toCheck(validate: ValidateFunction): Check {
  return (value) => (validate(value) ? undefined : describe(validate.errors ?? []));
}

/** The last error is the outermost: of several forms that all do not fit, it says so, not what each of them lacks. */
function describe(errors: readonly ErrorObject[]): string {
  const outer = errors.at(-1);
  if (!outer) return 'is not valid';
  const place = outer.instancePath.slice(1).replaceAll('/', '.');
  return `${place === '' ? '' : `${place} `}${expectation(outer)}`;
}

function expectation({ keyword, params, message }: ErrorObject): string {
  const { additionalProperty, allowedValue, allowedValues } = params as Readonly<Record<string, unknown>>;
  if (keyword === 'anyOf') return 'has none of the forms that are allowed';
  if (keyword === 'additionalProperties') return `must not have ${String(additionalProperty)}`;
  if (keyword === 'const') return `must be ${JSON.stringify(allowedValue)}`;
  if (keyword === 'enum') return `must be one of ${(allowedValues as readonly unknown[]).map(String).join(', ')}`;
  return message ?? 'is not valid';
}

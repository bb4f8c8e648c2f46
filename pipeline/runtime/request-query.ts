import type { FastifyRequest } from 'fastify';
import { parseMoment } from '../../schemas/condition/instant.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { badRequest } from './request-fault.ts';

const lastInstant = Date.UTC(9999, 11, 31) * 1_000;
const uuid = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i;

/** Is the text a UUID in its usual form? */
export function isUuid(text: string): boolean {
  return uuid.test(text);
}

/**
 * A time of day on a date, with its zone, from 1970 to 9999; otherwise undefined. The text is passed on as it is: PostgreSQL reads
 * it too, with its microseconds.
 */
export function instantOf(value: unknown): string | undefined {
  const moment = typeof value === 'string' ? parseMoment(value) : undefined;
  if (!moment?.hasTime || moment.zone === undefined || moment.instant < 0 || moment.instant > lastInstant) return undefined;
  return value as string;
}

/**
 * Reads the parameters behind the question mark: each given once, each known. Faults name the parameter.
 * @param names parameters that the path takes, none when left out; one that ends in `.` stands for all that begin so
 * @throws RequestFault `bad_request`
 */
export function readQuery(request: FastifyRequest, names: readonly string[] = []): Query {
  const given = new Map<string, string>();
  const known = names.map((name) => (name.endsWith('.') ? `${name}<column>` : name));
  const taken = known.length === 0 ? 'this path takes none' : `there are ${known.join(', ')}`;
  for (const [name, value] of new URLSearchParams(request.url.split('?').slice(1).join('?'))) {
    if (!names.some((one) => (one.endsWith('.') ? name.startsWith(one) && name !== one : name === one)))
      throw badRequest(`there is no parameter ${name}${suggestion(name, known) || `; ${taken}`}`, name);
    if (given.has(name)) throw badRequest(`${name} is given more than once`, name);
    if (value.includes('\0') || name.includes('\0')) throw badRequest(`${name} must not contain the character NUL`, name);
    given.set(name, value);
  }
  return new Query(given);
}

/** Parameters by name, read as what they have to be. */
export class Query {
  readonly given: ReadonlyMap<string, string>;

  constructor(given: ReadonlyMap<string, string>) {
    this.given = given;
  }

  text(name: string): string | undefined {
    return this.given.get(name);
  }

  count(name: string, min: number, max: number): number | undefined {
    const value = this.given.get(name);
    if (value === undefined) return undefined;
    const number = /^\d{1,9}$/.test(value) ? Number(value) : NaN;
    if (!(number >= min && number <= max)) throw badRequest(`${name} must be a whole number from ${min} to ${max}`, name);
    return number;
  }

  flag(name: string): boolean | undefined {
    const value = this.choice(name, ['true', 'false']);
    return value === undefined ? undefined : value === 'true';
  }

  choice(name: string, values: readonly string[]): string | undefined {
    const value = this.given.get(name);
    if (value !== undefined && !values.includes(value)) throw badRequest(`${name} must be one of ${values.join(', ')}`, name);
    return value;
  }

  uuid(name: string): string | undefined {
    const value = this.given.get(name);
    if (value !== undefined && !isUuid(value)) throw badRequest(`${name} must be an id like 4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10`, name);
    return value;
  }

  /** A time with its zone. */
  instant(name: string): string | undefined {
    const value = this.given.get(name);
    if (value === undefined) return undefined;
    const at = instantOf(value);
    if (at === undefined) throw badRequest(`${name} must be a time with its zone, like 2026-11-22T12:00:00Z (a + is written %2B)`, name);
    return at;
  }

  /** Parameters that begin with `prefix`, by what comes after it. */
  under(prefix: string): readonly (readonly [name: string, value: string])[] {
    return [...this.given].filter(([name]) => name.startsWith(prefix)).map(([name, value]) => [name.slice(prefix.length), value]);
  }
}

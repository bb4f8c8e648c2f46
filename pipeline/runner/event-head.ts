import type { LogEvent } from '../log/event-log.ts';

const idStart = '{"v":1,"id":"'.length;
const idLength = 25;

/** The event's id, read from its fixed place; empty when there is none. */
export function idOf({ data }: LogEvent): string {
  const id = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('latin1', idStart, idStart + idLength);
  return /^[0-9A-F]{16}\.[0-9A-F]{8}$/.test(id) ? id : '';
}

const atMark = Buffer.from('"at":"');

/**
 * The event's `at` in microseconds since 1970; undefined when it has none. Nothing that could hold the same text follows
 * it in an event, so the last occurrence is the event's own.
 */
export function microsOf({ data }: LogEvent): number | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const start = bytes.lastIndexOf(atMark);
  if (start < 0) return undefined;
  return parseMicros(bytes.toString('latin1', start + atMark.length, start + atMark.length + 40).split('"', 1)[0]!);
}

/** `2026-11-22T12:00:00.123456Z` in microseconds since 1970, exact until the year 2255. */
function parseMicros(text: string): number | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z$/.exec(text);
  if (!match) return undefined;
  const ms = Date.parse(`${match[1]}Z`);
  return Number.isNaN(ms) ? undefined : ms * 1_000 + Number((match[2] ?? '').padEnd(6, '0'));
}

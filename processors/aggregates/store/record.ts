import type { Contribution, RowPoint } from '../engine/effects.ts';
import type { Point, WindowRecord } from '../model.ts';

type Fields = readonly [
  number,
  string,
  string,
  string,
  ...(readonly [number, string, string]),
  ...(readonly [number, string, string]),
  number,
  0 | 1,
];

/** A record as Redis holds it: a JSON array. */
export function encodeRecord({ count, sum, min, max, open, close, revision, sketched }: WindowRecord): string {
  // By hand: records are most of what is written.
  return `[${count},"${sum}","${min}","${max}",${encodePlace(open)},${encodePlace(close)},${revision},${sketched ? 1 : 0}]`;
}

function encodePlace({ at, id, value }: Point): string {
  return `${at},${/^[\w.-]*$/.test(id) ? `"${id}"` : JSON.stringify(id)},"${value}"`;
}

export function decodeRecord(text: string): WindowRecord {
  const [count, sum, min, max, openAt, openId, openValue, closeAt, closeId, closeValue, revision, sketched] = JSON.parse(text) as Fields;
  const open: Point = { at: openAt, id: openId, value: openValue };
  const close: Point = { at: closeAt, id: closeId, value: closeValue };
  return { count, sum, min, max, open, close, revision, sketched: sketched === 1 };
}

/** What a row contributes, as Redis holds it: a JSON array. */
export function encodeContribution({ group, at, id, value }: Contribution): string {
  return JSON.stringify([group, at, id, value]);
}

export function decodeContribution(text: string): Contribution {
  const [group, at, id, value] = JSON.parse(text) as [string, number, string, string];
  return { group, at, id, value };
}

/** A point of a row, as Redis holds it under its id: a JSON array. */
export function encodePoint({ at, value, row }: RowPoint): string {
  return JSON.stringify([at, value, row]);
}

export function decodePoint(id: string, text: string): RowPoint {
  const [at, value, row] = JSON.parse(text) as [number, string, string];
  return { at, id, value, row };
}

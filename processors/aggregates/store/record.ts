import type { Contribution, RowPoint } from '../engine/effects.ts';
import type { Point, WindowRecord } from '../model.ts';

type Fields = [string, string, string, string, string, string, string, string, string, string, string, string];

const plainId = /^[\w.-]*$/;

/**
 * A record as Redis holds it: its fields with `|` between them, none of which JSON has to escape. Records are most of what is written, so what is the
 * same is left out: min and max that are the first value, and the last place when it is the first.
 */
export function encodeRecord({ count, sum, min, max, open, close, revision, sketched }: WindowRecord): string {
  const first = open.value;
  const last = close.id === open.id && close.at === open.at ? '||' : encodePlace(close);
  return `${count}|${sum}|${min === first ? '' : min}|${max === first ? '' : max}|${encodePlace(open)}|${last}|${revision}|${sketched ? 1 : 0}`;
}

export function decodeRecord(text: string): WindowRecord {
  const [count, sum, min, max, openAt, openId, openValue, closeAt, closeId, closeValue, revision, sketched] = text.split('|') as Fields;
  const open = decodePlace(openAt, openId, openValue);
  const close = closeAt === '' ? open : decodePlace(closeAt, closeId, closeValue);
  return {
    count: Number(count),
    sum,
    min: min || openValue,
    max: max || openValue,
    open,
    close,
    revision: Number(revision),
    sketched: sketched === '1',
  };
}

function encodePlace({ at, id, value }: Point): string {
  return `${at}|${plainId.test(id) ? id : encodeId(id)}|${value}`;
}

function decodePlace(at: string, id: string, value: string): Point {
  return { at: Number(at), id: id.includes('%') ? decodeId(id) : id, value };
}

/** Four hexadecimal digits for each code unit that could be taken for something else. */
function encodeId(id: string): string {
  return id.replace(/[^\w.-]/g, (unit) => `%${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function decodeId(text: string): string {
  return text.replace(/%(....)/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 16)));
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

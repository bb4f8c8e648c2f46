import { compareDecimal } from '../../schemas/decimal.ts';

/** Bytes that a body may have. */
export const bodyLimit = 64 * 1024;

/** A body that is no JSON to work with; the message is a sentence. */
export class BadJson extends Error {}

const deepest = 64;
const anything = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;

/**
 * Reads a JSON body, or undefined when there is none. What PostgreSQL or a double could not hold as it was written is refused:
 * invalid UTF-8, NUL and half characters in texts, numbers with more digits than a double has, nesting beyond reason.
 * @throws BadJson
 */
export function readJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new BadJson('the body is not valid UTF-8');
  }
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BadJson(`the body is not JSON: ${(error as Error).message}`);
  }
  checkValues(value);
  checkNumbers(text);
  return value;
}

/** Without recursion: the nesting comes from outside. */
function checkValues(root: unknown): void {
  const open: { readonly value: unknown; readonly depth: number }[] = [{ value: root, depth: 0 }];
  for (let next = open.pop(); next; next = open.pop()) {
    const { value, depth } = next;
    if (typeof value === 'string') checkText(value);
    if (typeof value !== 'object' || value === null) continue;
    if (depth === deepest) throw new BadJson(`the body is nested more than ${deepest} deep`);
    for (const [name, member] of Object.entries(value)) {
      checkText(name);
      // As a name it means something else to JavaScript, and nobody's column is called so.
      if (name === '__proto__') throw new BadJson('the body must not have a member __proto__');
      open.push({ value: member, depth: depth + 1 });
    }
  }
}

function checkText(text: string): void {
  if (text.includes('\0')) throw new BadJson('texts must not contain the character NUL (\\u0000)');
  if (/\p{Surrogate}/u.test(text)) throw new BadJson('texts must not contain half of a surrogate pair');
}

function checkNumbers(text: string): void {
  for (const [token] of text.matchAll(anything)) {
    if (token.startsWith('"')) continue;
    const number = Number(token);
    if (!Number.isFinite(number) || compareDecimal(token, String(number)) !== 0)
      throw new BadJson(`the number ${token.slice(0, 60)} has more digits or size than JSON numbers keep: write it as text, in quotes`);
  }
}

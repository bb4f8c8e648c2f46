/**
 * Finds values in JSON text without parsing it, so that what is not needed costs little and what is passed on stays
 * byte for byte what it was. The text is the Latin-1 view of UTF-8 bytes: its positions are byte offsets, and no byte of
 * a longer character looks like JSON's own signs. The text must be JSON; a view that is cut off finds nothing.
 */
export interface Range {
  readonly start: number;
  readonly end: number;
}

const quote = 0x22;
const backslash = 0x5c;

/** A member of an object; `name` is the raw text between its quotes. */
export interface Member extends Range {
  readonly name: string;
}

/** Calls `visit` for each member of the object at `start`, in order, until it returns false. True when it has come to the object's end. */
export function eachMember(text: string, start: number, visit: (member: Member) => boolean): boolean {
  if (text[start] !== '{') return false;
  let at = skipSpace(text, start + 1);
  while (text.charCodeAt(at) === quote) {
    const nameEnd = endOfString(text, at);
    const colon = nameEnd < 0 ? -1 : skipSpace(text, nameEnd);
    if (text[colon] !== ':') return false;
    const value = skipSpace(text, colon + 1);
    const end = endOfValue(text, value);
    if (end < 0 || !visit({ name: text.slice(at + 1, nameEnd - 1), start: value, end })) return false;
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return text[at] === '}';
}

/** The value of one member of the object at `start`. */
export function member(text: string, start: number, name: string): Range | undefined {
  let found: Range | undefined;
  eachMember(text, start, (one) => {
    if (one.name === name) found = one;
    return !found;
  });
  return found;
}

/** Just past the value at `at`; -1 when the text ends before it does. */
function endOfValue(text: string, at: number): number {
  const first = text[at];
  if (first === '"') return endOfString(text, at);
  if (first === '{' || first === '[') return endOfContainer(text, at);
  let end = at;
  while (end < text.length && !',]} \t\r\n'.includes(text[end]!)) end++;
  return end < text.length && end > at ? end : -1;
}

function endOfString(text: string, at: number): number {
  for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++;
    if (escapes % 2 === 0) return end + 1;
  }
  return -1;
}

function endOfContainer(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === quote) {
      i = endOfString(text, i) - 1;
      if (i < 0) return -1;
    } else if (char === 0x7b || char === 0x5b) depth++;
    else if ((char === 0x7d || char === 0x5d) && --depth === 0) return i + 1;
  }
  return -1;
}

function skipSpace(text: string, at: number): number {
  let end = at;
  for (let char = text.charCodeAt(end); char === 0x20 || char === 0x0a || char === 0x0d || char === 0x09; char = text.charCodeAt(end))
    end++;
  return end;
}

/**
 * A text from outside as it may stand in one line of a message, a header or a log: no line breaks, no control characters, nothing that
 * is invisible or turns the reading direction. What joins letters and emoji (U+200C, U+200D) stays. Longer ones end in `…`.
 * @param max in UTF-16 units, the `…` included
 */
export function oneLine(text: string, max: number): string {
  const line = text
    .replace(/[\p{Zl}\p{Zp}\s\u0085]+/gu, ' ')
    .replace(/(?![\u200C\u200D])[\p{Cc}\p{Cf}\p{Cs}\uFFFD]+/gu, '')
    .trim();
  return cut(line, max);
}

/** At most so many UTF-16 units of a text, the last of them `…` when it had more. */
export function cut(text: string, max: number): string {
  return text.length > max ? `${text.slice(0, max - 1).replace(/[\uD800-\uDBFF]$/, '')}…` : text;
}

/** Percent-encodes what NATS or a reader of subjects could stumble over: `.` `*` `>` `%`, white space, control characters. */
export function encodeToken(name: string): string {
  // eslint-disable-next-line no-control-regex
  return name.replace(/[.*>%\s\u0000-\u001f\u007f-\u009f]/gu, (char) =>
    [...new TextEncoder().encode(char)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}

/** The reverse of `encodeToken`; a token that it cannot have made stays as it is. */
export function decodeToken(token: string): string {
  try {
    return decodeURIComponent(token);
  } catch {
    return token;
  }
}

/** `<schema>.<table>` with both names encoded: the part of a subject that names a table. */
export function tableToken(schema: string, table: string): string {
  return `${encodeToken(schema)}.${encodeToken(table)}`;
}

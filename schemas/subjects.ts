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

/** A table by both its names. */
export interface TableName {
  readonly schema: string;
  readonly table: string;
}

/**
 * The tables that `<schema>.<table>` can mean, or a name in `public`. A dot may belong to either name, so there can be several; the text itself
 * does not tell. Empty when no table is written so.
 */
export function tablesNamed(name: string): readonly TableName[] {
  if (!name.includes('.')) return name === '' ? [] : [{ schema: 'public', table: name }];
  const tables: TableName[] = [];
  for (let dot = name.indexOf('.', 1); dot > 0 && dot < name.length - 1; dot = name.indexOf('.', dot + 1))
    tables.push({ schema: name.slice(0, dot), table: name.slice(dot + 1) });
  return tables;
}

import { badRequest, RequestFault } from '../../../pipeline/runtime/request-fault.ts';

/** The entity tag of a revision (RFC 9110, 8.8.3): strong, since a revision names the content. */
export function etagOf(revision: number): string {
  return `"${revision}"`;
}

/**
 * Checks `If-Match` (RFC 9110, 13.1.1) against what is stored.
 * @throws RequestFault `precondition_failed` when somebody else was faster, `bad_request` when the header is none
 */
export function requireMatch(header: string | undefined, revision: number): void {
  if (header === undefined) return;
  const tags = parse(header, 'If-Match');
  if (tags === '*' || tags.some(({ weak, tag }) => !weak && tag === String(revision))) return;
  if (tags.some(({ tag }) => tag === String(revision)))
    throw new RequestFault('precondition_failed', `If-Match takes the ETag without W/: ${etagOf(revision)}`, 'If-Match');
  throw new RequestFault('precondition_failed', `it has been changed since: its ETag is ${etagOf(revision)} now`, 'If-Match');
}

/** Does the client have this revision already, by its `If-None-Match` (RFC 9110, 13.1.2)? */
export function isKnown(header: string | undefined, revision: number): boolean {
  if (header === undefined) return false;
  const tags = parse(header, 'If-None-Match');
  return tags === '*' || tags.some(({ tag }) => tag === String(revision));
}

function parse(header: string, name: string): '*' | readonly { readonly weak: boolean; readonly tag: string }[] {
  if (header.trim() === '*') return '*';
  return header.split(',').map((part) => {
    const match = /^(W\/)?"([^"]*)"$/.exec(part.trim());
    if (!match) throw badRequest(`${name} takes * or an ETag in its quotes, like "3"`, name);
    return { weak: match[1] !== undefined, tag: match[2]! };
  });
}

import { createHash } from 'node:crypto';
import { badRequest } from '../../../pipeline/runtime/request-fault.ts';
import type { Query } from '../../../pipeline/runtime/request-query.ts';
import type { Definition } from '../model.ts';

/** Cursors of one list: they hold only with the same parameters. */
export class Cursors {
  readonly #given: string | undefined;
  readonly #seal: string;

  constructor(query: Query, { name }: Definition) {
    this.#given = query.text('cursor');
    const others = [...query.given]
      .filter(([parameter]) => !['cursor', 'limit', 'format'].includes(parameter))
      .sort(([a], [b]) => (a < b ? -1 : 1));
    this.#seal = createHash('sha256')
      .update(JSON.stringify([name, others]))
      .digest('base64url')
      .slice(0, 12);
  }

  make(position: string): string {
    return Buffer.from(`${this.#seal}${position}`).toString('base64url');
  }

  /**
   * The position of the cursor that was sent, if there was one.
   * @param read undefined when it can be none
   * @throws RequestFault `bad_request`
   */
  open<T>(read: (position: string) => T | undefined): T | undefined {
    if (this.#given === undefined) return undefined;
    const text = Buffer.from(this.#given, 'base64url').toString('utf8');
    if (!/^[\w-]{12}/.test(text)) throw badRequest('cursor is not the "next" of a page', 'cursor');
    if (!text.startsWith(this.#seal)) throw badRequest('cursor belongs to another list: use it with the same parameters', 'cursor');
    const position = read(text.slice(this.#seal.length));
    if (position === undefined) throw badRequest('cursor is not the "next" of a page', 'cursor');
    return position;
  }
}

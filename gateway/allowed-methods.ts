import type { RouteOptions } from 'fastify';

interface Mounted {
  readonly pattern: RegExp;
  readonly methods: readonly string[];
}

/** Remembers which methods the mounted routes take, to tell a wrong method from a path that is not there. */
export class AllowedMethods {
  readonly #routes: Mounted[] = [];

  /** Takes note of a route; for the `onRoute` hook. */
  add({ url, method }: Pick<RouteOptions, 'url' | 'method'>): void {
    const escaped = url.replace(/[\\^$.|?+()[\]{}]/g, '\\$&');
    const pattern = escaped.replaceAll('*', '.*').replace(/:[A-Za-z_]\w*/g, '[^/]+');
    this.#routes.push({ pattern: new RegExp(`^${pattern}$`, 's'), methods: [method].flat() });
  }

  /** The methods that this path takes; none when there is no such path. */
  of(path: string): readonly string[] {
    return [...new Set(this.#routes.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods))].sort();
  }
}

import { readConfig } from '../../pipeline/runtime/config.ts';
import { Health } from '../../pipeline/runtime/health.ts';
import type { RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { Registry } from 'prom-client';

/** What a role is given, with a registry, health and signal of its own. */
export function roleContext(signal: AbortSignal = new AbortController().signal): RoleContext {
  return {
    config: readConfig({}),
    log: createLogger(process.env['TEST_LOG_LEVEL'] ?? 'silent', false),
    metrics: new Registry(),
    health: new Health(),
    signal,
  };
}

/** Waits until the condition holds; fails after `ms`. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 10_000, what = 'the condition'): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`${what} did not come true within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

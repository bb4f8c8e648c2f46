import fastify, { type FastifyInstance } from 'fastify';
import type { Config } from '../../pipeline/runtime/config.ts';
import type { Health } from '../../pipeline/runtime/health.ts';
import type { Registry } from '../../pipeline/runtime/metrics.ts';

/** `/livez`, `/readyz` and `/metrics` of this process. */
export async function startAdminServer(
  config: Config,
  health: Health,
  metrics: Registry,
): Promise<{ url: string; close(): Promise<void> }> {
  const app = fastify();
  app.get('/livez', () => ({ ok: true }));
  app.get('/readyz', (_request, reply) => {
    const degraded = health.checks.filter((check) => !check.ok);
    return reply
      .code(health.ready ? 200 : 503)
      .send({ ok: health.ready, checks: health.checks, degraded: degraded.map((check) => check.name) });
  });
  app.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  const url = await listen(app, config);
  return { url, close: () => app.close() };
}

/** A port that was asked for must be free; the default one gives way. */
async function listen(app: FastifyInstance, { host, adminPort, provenance }: Config): Promise<string> {
  try {
    return await app.listen({ host, port: adminPort });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || provenance.adminPort !== 'default') throw error;
    return app.listen({ host, port: 0 });
  }
}

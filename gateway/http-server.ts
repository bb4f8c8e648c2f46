import fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Config } from '../pipeline/runtime/config.ts';
import { HeadwaterError, messageOf } from '../pipeline/runtime/errors.ts';
import { errorBody, type Routes } from '../pipeline/runtime/http.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { hasKeyInUrl, keyInUrlMessage, realtimePath } from './admission.ts';
import { bearerOf, type Authenticator } from './authenticator.ts';
import type { ClientAddress } from './client-address.ts';

export interface HttpServices {
  readonly config: Config;
  readonly log: Logger;
  readonly authenticator: Authenticator;
  readonly address: ClientAddress;
  readonly routes: readonly Routes[];
}

/** The HTTP side: authentication for everything under `/v2`, one form of error, and whatever routes are mounted. */
export async function createHttpServer(services: HttpServices): Promise<FastifyInstance> {
  const { config, log, address, routes } = services;
  const app = fastify({
    logger: false,
    trustProxy: address.trust,
    forceCloseConnections: true,
    bodyLimit: 1024 ** 2,
    requestTimeout: 60_000,
  });
  // Fastify wants the property declared; every route under /v2 finds it set by the hook.
  app.decorateRequest('principal', null as never);
  app.addHook('onRequest', (request, reply) => cors(config.origins, request, reply));
  app.addHook('onRequest', (request, reply) => authenticate(services.authenticator, request, reply));
  app.setNotFoundHandler((request, reply) =>
    reply.code(404).send(errorBody('not_found', `there is no ${request.method} ${pathOf(request)}`)),
  );
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply, log));
  app.get(realtimePath, (_request, reply) =>
    reply
      .code(426)
      .header('Upgrade', 'websocket')
      .send(errorBody('upgrade_required', 'this is a WebSocket: connect with a WebSocket client')),
  );
  for (const mount of routes) await mount(app);
  await app.ready();
  return app;
}

/** Listens; the default port gives way to a free one when it is taken, a port that was asked for does not. Returns the URL. */
export async function listen(app: FastifyInstance, { host, port, provenance }: Config): Promise<string> {
  const taken = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
  const address = await app.listen({ host, port }).catch((error: unknown) => {
    if (!taken(error)) throw error;
    if (provenance.port === 'default') return app.listen({ host, port: 0 });
    throw new HeadwaterError('port_taken', `port ${port} of ${host} is taken`, {
      reaction: 'usage',
      hint: 'choose another one with HEADWATER_PORT or --port, or 0 for any free one',
    });
  });
  return address.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
}

async function authenticate(authenticator: Authenticator, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const path = pathOf(request);
  if ((path !== '/v2' && !path.startsWith('/v2/')) || path === realtimePath || request.method === 'OPTIONS') return;
  if (hasKeyInUrl(request.url)) return void (await reply.code(400).send(errorBody('bad_request', keyInUrlMessage)));
  const apiKey = bearerOf(request.headers.authorization);
  const outcome = apiKey === undefined ? undefined : await authenticator.authenticate(apiKey);
  if (outcome?.ok) request.principal = outcome.key;
  else if (outcome?.code === 'overload') await reply.code(503).header('Retry-After', '1').send(errorBody('overload', outcome.message));
  else
    await reply
      .code(401)
      .header('WWW-Authenticate', 'Bearer')
      .send(errorBody('unauthorized', outcome?.message ?? 'send Authorization: Bearer with an API key'));
}

/** Browsers may read answers only from the origins that are configured. */
async function cors(origins: readonly string[], request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { origin } = request.headers;
  if (origin === undefined || !origins.includes(origin)) return;
  reply.header('Access-Control-Allow-Origin', origin).header('Vary', 'Origin');
  if (request.method !== 'OPTIONS') return;
  await reply
    .header('Access-Control-Allow-Methods', 'GET, POST, PUT, PATCH, DELETE')
    .header('Access-Control-Allow-Headers', 'Authorization, Content-Type, If-Match')
    .header('Access-Control-Max-Age', '600')
    .code(204)
    .send();
}

function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply, log: Logger): FastifyReply {
  const status = error.statusCode ?? 500;
  if (status < 500) return reply.code(status).send(errorBody(codeOf(status), error.message));
  log.error({ error: messageOf(error), path: pathOf(request) }, 'a request failed');
  return reply.code(status).send(errorBody('internal', 'the request could not be served'));
}

function codeOf(status: number): string {
  const codes: Readonly<Record<number, string>> = {
    404: 'not_found',
    413: 'too_large',
    415: 'unsupported_media_type',
    429: 'rate_limited',
  };
  return codes[status] ?? 'bad_request';
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0]!;
}

import fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Config } from '../pipeline/runtime/config.ts';
import { HeadwaterError, messageOf } from '../pipeline/runtime/errors.ts';
import { errorBody, sendError, type Routes } from '../pipeline/runtime/http.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { errorCodes, type HttpErrorCode } from '../schemas/error-codes.ts';
import { hasKeyInUrl, keyInUrlMessage, realtimePath, refuseUpgrade } from './admission.ts';
import { AllowedMethods } from './allowed-methods.ts';
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
    // What the framework and the parser refuse by themselves gets the same form of answer.
    frameworkErrors: (error, request, reply) => void answerError(error, request, reply, log),
    clientErrorHandler: (error, socket) => {
      if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
      refuseUpgrade(socket, { code: 'bad_request', message: 'the request is not HTTP, is too long, or did not come in time' });
    },
  });
  // Fastify wants the property declared; every route under /v2 finds it set by the hook.
  app.decorateRequest('principal', null as never);
  app.addHook('onRequest', (request, reply) => cors(config.origins, request, reply));
  app.addHook('onRequest', (request, reply) => authenticate(services.authenticator, request, reply));
  const allowed = new AllowedMethods();
  app.addHook('onRoute', (route) => allowed.add(route));
  app.setNotFoundHandler((request, reply) => answerUnrouted(allowed, request, reply));
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply, log));
  app.get(realtimePath, (_request, reply) =>
    sendError(reply.header('Upgrade', 'websocket'), 'upgrade_required', 'this is a WebSocket: connect with a WebSocket client'),
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
  // The matched route counts, not the path as it was written: the router decodes it. Where nothing matched, the path does.
  const path = request.routeOptions.url ?? pathOf(request);
  if ((path !== '/v2' && !path.startsWith('/v2/')) || path === realtimePath || request.method === 'OPTIONS') return;
  if (request.routeOptions.config?.open === true) return;
  if (hasKeyInUrl(request.url)) return void (await sendError(reply, 'bad_request', keyInUrlMessage));
  const apiKey = bearerOf(request.headers.authorization);
  const outcome = apiKey === undefined ? undefined : await authenticator.authenticate(apiKey);
  if (outcome?.ok) request.principal = outcome.key;
  else if (outcome?.code === 'overload') await sendError(reply.header('Retry-After', '1'), 'overload', outcome.message);
  else {
    const message = outcome?.message ?? 'send Authorization: Bearer with an API key';
    await sendError(reply.header('WWW-Authenticate', 'Bearer'), 'unauthorized', message);
  }
}

/** Browsers may read answers only from the origins that are configured. */
async function cors(origins: readonly string[], request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { origin } = request.headers;
  if (origin === undefined || !origins.includes(origin)) return;
  reply.header('Access-Control-Allow-Origin', origin).header('Vary', 'Origin');
  reply.header('Access-Control-Expose-Headers', 'ETag, Location, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset');
  if (request.method !== 'OPTIONS') return;
  await reply
    .header('Access-Control-Allow-Methods', 'GET, POST, PUT, PATCH, DELETE')
    .header('Access-Control-Allow-Headers', 'Authorization, Content-Type, If-Match, If-None-Match')
    .header('Access-Control-Max-Age', '600')
    .code(204)
    .send();
}

/** No route took the request: the path is not there, or it takes other methods. */
function answerUnrouted(allowed: AllowedMethods, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const path = pathOf(request);
  const methods = allowed.of(path);
  if (methods.length === 0) return sendError(reply, 'not_found', `there is no ${path}`);
  const list = methods.join(', ');
  return sendError(reply.header('Allow', list), 'method_not_allowed', `${path} takes ${list}, not ${request.method}`);
}

function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply, log: Logger): FastifyReply {
  const status = error.statusCode ?? 500;
  if (status < 500) return reply.code(status).send(errorBody(codeOf(status), error.message));
  log.error({ error: messageOf(error), path: pathOf(request) }, 'a request failed');
  return sendError(reply, 'internal', 'the request could not be served');
}

/** The code of an error that the framework found, by its status. */
function codeOf(status: number): HttpErrorCode {
  const codes = Object.keys(errorCodes) as (keyof typeof errorCodes)[];
  const found = codes.find((code): code is HttpErrorCode => 'status' in errorCodes[code] && errorCodes[code].status === status);
  return found ?? 'bad_request';
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0]!;
}

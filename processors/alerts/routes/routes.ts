import type { FastifyError, FastifyInstance } from 'fastify';
import { publicationList } from '../../../pipeline/capture/publications.ts';
import type { PgPool } from '../../../pipeline/clients/postgres.ts';
import type { EventLog } from '../../../pipeline/log/event-log.ts';
import type { Config } from '../../../pipeline/runtime/config.ts';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import { sendError, type Routes } from '../../../pipeline/runtime/http.ts';
import { bodyLimit } from '../../../pipeline/runtime/json-body.ts';
import type { Logger } from '../../../pipeline/runtime/logging.ts';
import { RequestFault } from '../../../pipeline/runtime/request-fault.ts';
import type { Catalog } from '../../../schemas/catalog.ts';
import { openapi } from '../../../schemas/generated/openapi.ts';
import { deviceRoutes } from './devices.ts';
import { DryRuns } from './dry-runs.ts';
import { historyRoutes } from './history.ts';
import { parseBody } from './json-body.ts';
import { notificationRoutes } from './notifications.ts';
import { OwnedRows } from './owned-rows.ts';
import { RuleJudge } from './rule-judge.ts';
import { RuleStore } from './rule-store.ts';
import { ruleTestRoutes } from './rule-tests.ts';
import { ruleRoutes } from './rules.ts';
import { silenceRoutes } from './silences.ts';

export interface AlertRoutesParts {
  readonly pool: PgPool;
  readonly eventLog: EventLog;
  readonly catalog: Catalog;
  readonly config: Pick<Config, 'subject' | 'publication' | 'allowPrivateWebhooks' | 'vapidPublicKey'>;
  readonly log: Logger;
}

/**
 * Rules, alerts, notifications, silences and devices over HTTP (docs/alerts.md, docs/openapi.yaml). A key needs the scope `alerts`
 * or `admin`, and sees what belongs to its owner, whichever of the two it has.
 */
export function alertRoutes({ pool, eventLog, catalog, config, log }: AlertRoutesParts): Routes {
  const rows = new OwnedRows(pool, log);
  const { allowPrivateWebhooks: allowPrivate, vapidPublicKey: pushKey } = config;
  const judge = new RuleJudge({ rows, catalog, publications: publicationList(config.publication), allowPrivate });
  const rules = new RuleStore(rows);
  const dryRuns = new DryRuns({ eventLog, subject: config.subject });
  return async (app) => {
    app.get('/v2/openapi.json', { config: { open: true } }, (_request, reply) => reply.send(openapi));
    await app.register((scope, _options, done) => {
      prepare(scope, log);
      ruleRoutes(scope, rules, judge);
      ruleTestRoutes(scope, rules, judge, dryRuns);
      historyRoutes(scope, rows);
      notificationRoutes(scope, rows);
      silenceRoutes(scope, rows);
      deviceRoutes(scope, { rows, allowPrivate, pushKey });
      done();
    });
  };
}

/** What holds for all of these routes and for no others: scope, body and errors. */
function prepare(scope: FastifyInstance, log: Logger): void {
  scope.addHook('onRequest', async (request, reply) => {
    if (request.principal.scopes.some((name) => name === 'alerts' || name === 'admin')) return;
    await sendError(reply, 'forbidden', 'this key may not use alerts: it needs the scope alerts or admin');
  });
  scope.removeAllContentTypeParsers();
  scope.addContentTypeParser('application/json', { parseAs: 'buffer', bodyLimit }, (_request, body, done) => {
    try {
      done(null, parseBody(body as Buffer));
    } catch (error) {
      done(error as Error);
    }
  });
  scope.setErrorHandler((error: FastifyError, request, reply) => {
    if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
      return sendError(reply, 'too_large', `the body has more than the ${bodyLimit} bytes that are allowed`);
    if (error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE')
      return sendError(reply, 'unsupported_media_type', 'send the body with Content-Type: application/json');
    // What is not ours is for the gateway's handler.
    if (!(error instanceof RequestFault)) throw error;
    if (error.code === 'unavailable' || error.code === 'rate_limited') void reply.header('retry-after', '1');
    if (error.code === 'unavailable') log.warn({ error: messageOf(error.cause ?? error), path: request.routeOptions.url }, error.message);
    return sendError(reply, error.code, error.message, error.field, error.faults);
  });
}

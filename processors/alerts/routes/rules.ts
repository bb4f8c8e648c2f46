import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { notFound, RequestFault } from '../../../pipeline/runtime/request-fault.ts';
import { readQuery } from '../../../pipeline/runtime/request-query.ts';
import { newSecret } from '../../notify/channels/secret.ts';
import { mergeChannels, rotated, type StoredChannel } from './channels.ts';
import { etagOf, isKnown, requireMatch } from './etag.ts';
import { objectBody } from './json-body.ts';
import type { RuleJudge } from './rule-judge.ts';
import { patched, ruleResource, withoutOwnMembers, type RuleContent, type RuleRow } from './rule-resource.ts';
import { contentOf, type RuleStore } from './rule-store.ts';

type Id = { Params: { id: string } };
type Channel = { Params: { id: string; n: string } };

/** What an update makes of a rule. */
interface Update {
  readonly content: RuleContent;
  readonly channels: readonly StoredChannel[];
  /** Secrets made on the way, by index of their channel: shown this once. */
  readonly made: ReadonlyMap<number, string>;
}

const path = '/v2/alert-rules';
/** How often a change is tried while others change the same rule. */
const mostAttempts = 5;

/** `/v2/alert-rules`. */
export function ruleRoutes(app: FastifyInstance, rules: RuleStore, judge: RuleJudge): void {
  app.post(path, async (request, reply) => {
    readQuery(request);
    const { content, channels: wanted } = await judge.judge(withoutOwnMembers(objectBody(request.body)));
    const { channels, made } = mergeChannels(wanted, [], new Date());
    const row = await rules.insert(request.principal.owner, content, channels);
    return sendRule(reply.code(201).header('Location', `${path}/${row.id}`), row, made);
  });

  app.get(path, (request) => rules.list(request.principal.owner, readQuery(request, ['limit', 'cursor', 'table', 'enabled', 'name'])));

  app.get<Id>(`${path}/:id`, async (request, reply) => {
    readQuery(request);
    const row = await rules.get(request.principal.owner, request.params.id);
    if (isKnown(request.headers['if-none-match'], row.revision)) return reply.code(304).header('ETag', etagOf(row.revision)).send();
    return sendRule(reply, row);
  });

  app.put<Id>(`${path}/:id`, async (request, reply) => {
    const body = withoutOwnMembers(objectBody(request.body));
    const judged = await judge.judge(body);
    return change(rules, request, reply, (row) =>
      Promise.resolve({ ...judged, ...mergeChannels(judged.channels, row.channels, new Date()) }),
    );
  });

  app.patch<Id>(`${path}/:id`, async (request, reply) => {
    const patch = objectBody(request.body);
    return change(rules, request, reply, async (row) => {
      // A rule can be put to rest also when its table has changed, or its webhook may no longer be called.
      if (isDisabling(patch)) return { content: { ...contentOf(row), enabled: false }, channels: row.channels, made: new Map() };
      const judged = await judge.judge(withoutOwnMembers(patched(ruleResource(row), patch)));
      return { ...judged, ...mergeChannels(judged.channels, row.channels, new Date()) };
    });
  });

  app.delete<Id>(`${path}/:id`, async (request, reply) => {
    readQuery(request);
    const { owner } = request.principal;
    for (let attempt = 0; attempt < mostAttempts; attempt++) {
      const row = await rules.get(owner, request.params.id);
      requireMatch(request.headers['if-match'], row.revision);
      if (await rules.delete(owner, row)) return reply.code(204).send();
    }
    throw busy();
  });

  app.post<Channel>(`${path}/:id/channels/:n/rotate-secret`, async (request, reply) => {
    const n = /^\d{1,3}$/.test(request.params.n) ? Number(request.params.n) : -1;
    return change(rules, request, reply, (row) => {
      const webhook = row.channels[n];
      if (webhook?.type !== 'webhook') throw notFound('webhook of this rule');
      const secret = newSecret();
      const channels = row.channels.with(n, rotated(webhook, secret, new Date()));
      return Promise.resolve({ content: contentOf(row), channels, made: new Map([[n, secret]]) });
    });
  });
}

function isDisabling(patch: Readonly<Record<string, unknown>>): boolean {
  return patch['enabled'] === false && Object.keys(patch).length === 1;
}

/** Changes a rule, again if somebody else did in between; a request with `If-Match` then fails. */
async function change(
  rules: RuleStore,
  request: FastifyRequest<Id>,
  reply: FastifyReply,
  update: (row: RuleRow) => Promise<Update>,
): Promise<FastifyReply> {
  readQuery(request);
  const { owner } = request.principal;
  for (let attempt = 0; attempt < mostAttempts; attempt++) {
    const before = await rules.get(owner, request.params.id);
    requireMatch(request.headers['if-match'], before.revision);
    const { content, channels, made } = await update(before);
    const row = await rules.update(owner, before, content, channels);
    if (row) return sendRule(reply, row, made);
  }
  throw busy();
}

function sendRule(reply: FastifyReply, row: RuleRow, made?: ReadonlyMap<number, string>): FastifyReply {
  // An answer with a secret in it is nobody else's to keep.
  if (made && made.size > 0) void reply.header('cache-control', 'no-store');
  return reply.header('ETag', etagOf(row.revision)).send(ruleResource(row, made));
}

function busy(): RequestFault {
  return new RequestFault('unavailable', 'the rule is being changed by others all the time, try again');
}

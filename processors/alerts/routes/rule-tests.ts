import type { FastifyInstance } from 'fastify';
import { badBody, notFound } from '../../../pipeline/runtime/request-fault.ts';
import { isUuid, readQuery } from '../../../pipeline/runtime/request-query.ts';
import { suggestion } from '../../../schemas/nearest.ts';
import type { DryRuns } from './dry-runs.ts';
import { objectBody } from './json-body.ts';
import type { RuleJudge } from './rule-judge.ts';
import { ruleResource, withoutOwnMembers } from './rule-resource.ts';
import type { RuleStore } from './rule-store.ts';

const [usualEvents, mostEvents] = [1_000, 10_000];
const members = ['rule', 'id', 'events'];

/** `POST /v2/alert-rules/test`: what a rule, stored or not, would have done over the newest events of its table. */
export function ruleTestRoutes(app: FastifyInstance, rules: RuleStore, judge: RuleJudge, dryRuns: DryRuns): void {
  app.post('/v2/alert-rules/test', async (request, reply) => {
    readQuery(request);
    const { owner } = request.principal;
    const { rule, id, count } = bodyOf(objectBody(request.body));
    const wanted = id === undefined ? objectBody(rule) : ruleResource(await rules.get(owner, id));
    const { content, table } = await judge.judge(withoutOwnMembers(wanted as Readonly<Record<string, unknown>>), 'rule.');
    // Without events only the rule itself is judged: whether it could be stored.
    if (count === 0) return reply.send({ alerts: [], pending: 0, events: { count: 0, complete: true } });
    return reply.send(await dryRuns.run(owner, content, table, count));
  });
}

function bodyOf(body: Readonly<Record<string, unknown>>): {
  readonly rule: unknown;
  readonly id: string | undefined;
  readonly count: number;
} {
  const { rule, id, events = usualEvents } = body;
  const faults: { field: string; message: string }[] = [];
  for (const name of Object.keys(body)) {
    if (!members.includes(name)) faults.push({ field: name, message: `is not known here${suggestion(name, members)}` });
  }
  if ((rule === undefined) === (id === undefined))
    faults.push({ field: 'rule', message: 'or id must be given: a rule, or the id of a stored one' });
  if (rule !== undefined && (typeof rule !== 'object' || rule === null || Array.isArray(rule)))
    faults.push({ field: 'rule', message: 'must be a rule, as POST /v2/alert-rules takes it' });
  if (!(Number.isInteger(events) && (events as number) >= 0 && (events as number) <= mostEvents))
    faults.push({ field: 'events', message: `must be a whole number from 0 to ${mostEvents}` });
  if (faults.length > 0) throw badBody(faults);
  if (id !== undefined && !(typeof id === 'string' && isUuid(id))) throw notFound('rule');
  return { rule, id, count: events as number };
}

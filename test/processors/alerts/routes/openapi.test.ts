import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'chai';
import fastify from 'fastify';
import { alertRoutes, type AlertRoutesParts } from '../../../../processors/alerts/routes/routes.ts';
import { openapi } from '../../../../schemas/generated/openapi.ts';
import { startRest, type Rest } from './support/rest.ts';

interface Parameter {
  readonly name: string;
  readonly in: 'query' | 'path' | 'header';
  readonly example?: unknown;
}
interface Example {
  readonly value: unknown;
  readonly 'x-status'?: string;
}
interface Response {
  readonly content?: { readonly 'application/json': { readonly schema: object } };
}
interface Operation {
  readonly operationId: string;
  readonly tags?: readonly string[];
  readonly parameters?: readonly object[];
  readonly requestBody?: {
    readonly content: { readonly 'application/json': { readonly schema: object; readonly examples: Record<string, Example> } };
  };
  readonly responses: Readonly<Record<string, object>>;
}

const document = openapi as {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>> & { readonly parameters?: readonly object[] }>>;
};
const methods = ['get', 'post', 'put', 'patch', 'delete'];
/** Routes of other parts, with tests of their own. */
const ofOthers: readonly string[] = ['query', 'aggregates'];
const operations = Object.entries(document.paths)
  .flatMap(([path, item]) =>
    methods.flatMap((method) => (item[method] ? [{ path, method, operation: item[method], shared: item.parameters ?? [] }] : [])),
  )
  .filter(({ operation }) => !operation.tags?.some((tag) => ofOthers.includes(tag)));

/** What a reference within the document names. */
function resolved(node: object): unknown {
  const { $ref } = node as { $ref?: string };
  if ($ref === undefined) return node;
  const steps = $ref.slice(2).split('/');
  return steps.reduce<unknown>((found, step) => (found as Record<string, unknown>)[step], openapi);
}

const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);
ajv.addSchema({ ...openapi, $id: 'openapi' });
function check(schema: object, value: unknown, what: string): void {
  // References in the schema are to the document.
  const validate = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"openapi#/')) as object);
  expect(validate(value), `${what}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value)}`).to.equal(true);
}

/** What the paths' examples name. */
const seed = `
  DELETE FROM headwater.alert_rules; DELETE FROM headwater.silences; DELETE FROM headwater.user_devices; DELETE FROM headwater.alert_history;
  DELETE FROM headwater.notification_jobs;
  INSERT INTO headwater.alert_rules (id, user_id, name, table_name, condition, channels) VALUES ('4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10', 'ann', 'ETH',
    'public.prices', '{"field":"price","op":"gt","value":"3000"}', '[{"type":"webhook","url":"https://hooks.example.com/alerts","secret":"whsec_x"}]');
  INSERT INTO headwater.silences (id, user_id, starts_at, ends_at) VALUES ('7c0d1b2a-3e4f-4a5b-8c6d-7e8f9a0b1c2d', 'ann', now(), '2099-01-01');
  INSERT INTO headwater.user_devices (id, user_id, endpoint, p256dh, auth) VALUES ('0e2c8a52-6e0f-4a35-8f0a-5a0d7e1a3b10', 'ann', 'https://push.example.com/1', 'k', 's');
  INSERT INTO headwater.alert_history (id, rule_id, revision, user_id, entity, severity, state, value, fired_at, fired_seq, event)
    VALUES ('6f1a9e44-2f0b-5c3d-8e21-90ab12cd34ef', '4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10', 1, 'ann', '{"token_id":"x"}', 'info', 'firing', '3001', '2026-11-22T12:00:00Z', 5, '{"v":1}');
  INSERT INTO headwater.notification_jobs (job_id, transition, alert_id, rule_id, user_id, at, channel, target_key, target, endpoint, state, reason)
    VALUES ('job-of-ann', 'firing', '6f1a9e44-2f0b-5c3d-8e21-90ab12cd34ef', '4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10', 'ann', now(), 'email', 'k', '{"to":"a@example.com"}', 'mail', 'suppressed', 'silenced')`;

describe('the OpenAPI description', function () {
  this.timeout(120_000);
  let rest: Rest;
  before(async () => {
    rest = await startRest();
  });
  after(() => rest?.close());
  beforeEach(() => rest.sql(seed));

  it('is valid OpenAPI 3.1', async () => {
    const { valid, errors } = await new Validator().validate(structuredClone<Record<string, unknown>>(openapi));
    expect(valid, JSON.stringify(errors)).to.equal(true);
  });

  it('has every route that there is, and no other', async () => {
    const app = fastify();
    const routes: string[] = [];
    app.addHook('onRoute', ({ method, url }) => {
      for (const name of [method].flat()) if (name !== 'HEAD') routes.push(`${name} ${url.replace(/:([a-z]+)/gi, '{$1}')}`);
    });
    const parts = { config: { subject: 'ev', publication: 'p' } } as unknown as AlertRoutesParts;
    await alertRoutes(parts)(app);
    await app.ready();
    expect(operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`)).to.have.members(routes);
    await app.close();
  });

  it('is served without a key, and nothing else is', async () => {
    const answer = await fetch(`${rest.url}/v2/openapi.json`);
    expect(answer.status).to.equal(200);
    expect(await answer.json()).to.deep.equal(openapi);
    for (const { path, operation } of operations) {
      if (operation.operationId === 'getDescription') continue;
      expect((await fetch(`${rest.url}${path.replace(/\{.*?\}/g, 'x')}`)).status, path).to.be.oneOf([401, 404, 405]);
    }
  });

  for (const { path, method, operation, shared } of operations) {
    const examples = Object.entries(operation.requestBody?.content['application/json'].examples ?? { '': { value: undefined } });
    for (const [name, example] of examples) {
      const status = example['x-status'] ?? Object.keys(operation.responses).find((code) => code.startsWith('2'))!;
      it(`${operation.operationId} ${name}: ${status}`, async () => {
        const parameters = [...shared, ...(operation.parameters ?? [])].map((parameter) => resolved(parameter) as Parameter);
        const given = (place: string): Parameter[] => parameters.filter((each) => each.in === place && each.example !== undefined);
        const target = given('path').reduce((url, each) => url.replace(`{${each.name}}`, String(each.example)), path);
        const query = new URLSearchParams(given('query').map((each): [string, string] => [each.name, String(each.example)])).toString();
        const headers = Object.fromEntries(given('header').map((each) => [each.name, String(each.example)]));
        const answer = await rest.call(method.toUpperCase(), query === '' ? target : `${target}?${query}`, example.value, { headers });
        expect(String(answer.status), answer.text).to.equal(status);
        const schema = (resolved(operation.responses[status]!) as Response).content?.['application/json'].schema;
        if (schema) check(schema, answer.body, 'the answer');
        else expect(answer.text).to.equal('');
        if (method === 'get' && answer.body?.items) expect(answer.body.items, 'the example finds something').to.have.length(1);
        const body = operation.requestBody?.content['application/json'].schema;
        if (body && !status.startsWith('4')) check(body, example.value, 'the example');
      });
    }
  }
});

import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openapi } from '../../../schemas/generated/openapi.ts';
import { TestClient } from '../../gateway/support/harness.ts';
import { projectRoot } from '../../project-root.ts';
import { rowEvent } from '../../support/row-events.ts';
import { startReading, type Reading } from './support/reading.ts';

const page = readFileSync(join(projectRoot(), 'docs', 'aggregates.md'), 'utf8');
const blocks = [...page.matchAll(/^```(\w+)\n(.*?)^```/gms)].map(([, language, text]) => ({ language, text: text! }));
const yaml = blocks.find(({ language }) => language === 'yaml')!.text;
/** The rows of the table of prices. */
const prices = [...page.matchAll(/^\| (\d\d:\d\d:\d\d(?:\.\d+)?) +\| ([\d.]+) +\|$/gm)].map(([, time, price]) => ({
  time: time!,
  price: price!,
}));
const events = prices.map(({ time, price }) => {
  const row = { token_id: 'ethereum:0xc02a', price };
  return rowEvent(Date.parse(`2026-11-22T${time}Z`) - Date.UTC(2026, 10, 22), 'update', { key: { token_id: row.token_id }, after: row });
});
const requests = blocks.flatMap((block, i) =>
  block.language === 'http' ? [{ path: block.text.trim().replace('GET /v2/aggregates', ''), answer: blocks[i + 1]! }] : [],
);

interface Operation {
  readonly operationId: string;
  readonly tags?: readonly string[];
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly example?: unknown }[];
  readonly responses: Readonly<Record<string, { readonly content: { readonly 'application/json': { readonly schema: object } } }>>;
}
const operations = Object.entries((openapi as { paths: Record<string, Record<string, Operation>> }).paths).flatMap(([path, { get }]) =>
  get?.tags?.includes('aggregates') ? [{ path, get }] : [],
);
const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);
ajv.addSchema({ ...openapi, $id: 'openapi' });

describe('aggregates, documentation', function () {
  this.timeout(60_000);
  let reading: Reading;
  before(async () => {
    reading = await startReading(`${yaml}\ntables: { public.prices: { channel: prices, filters: { tokenIds: token_id } } }\n`);
    await reading.append(...events.slice(0, 3));
  });
  after(() => reading.close());

  it('docs/aggregates.md shows the frame that a change gives', async () => {
    expect(prices).to.have.length(4);
    const client = await TestClient.open(reading.harness.gateway);
    const subscribe = JSON.parse(/→ (\{.*\})/.exec(page)![1]!) as object;
    expect(await client.subscribe(subscribe)).to.include({ type: 'subscribed' });
    await client.next('caught_up');
    await reading.append(events[3]!);
    const { event } = await client.next('event');
    const [shown] = blocks.filter(({ text }) => text.includes('"asOf"'));
    // The documentation leaves out what repeats itself.
    const cut = (value: unknown): string =>
      JSON.stringify(value, (name, member: unknown) => (['5m', '1h', '1d', '24h'].includes(name) ? null : member));
    expect(cut(event)).to.equal(cut(JSON.parse(shown!.text.replaceAll(/[[{]…[\]}]/g, 'null'))));
    client.ws.terminate();
  });

  for (const { path, answer } of requests) {
    it(`docs/aggregates.md: ${path}`, async () => {
      const { status, text } = await reading.get(path);
      expect(status, text).to.equal(200);
      if (answer.language === 'json') expect(JSON.parse(text)).to.deep.equal(JSON.parse(answer.text));
      else expect(text.replaceAll('\r\n', '\n')).to.equal(answer.text);
    });
  }

  for (const { path, get } of operations) {
    it(`openapi: ${get.operationId}`, async () => {
      const examples = (get.parameters ?? []).filter(({ example }) => example !== undefined);
      const query = new URLSearchParams(
        examples.filter((each) => each.in === 'query').map((each): [string, string] => [each.name, String(each.example)]),
      );
      const target = path.replace('/v2/aggregates', '').replace('{name}', 'price');
      const { status, text, items } = await reading.get(`${target}?${query.toString()}`);
      expect(status, text).to.equal(200);
      expect(items).to.have.length(1);
      const { schema } = get.responses['200']!.content['application/json'];
      const validate = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"openapi#/')) as object);
      expect(validate(JSON.parse(text)), `${ajv.errorsText(validate.errors)}\n${text}`).to.equal(true);
    });
  }

  it('the OpenAPI description has these paths', () => {
    expect(operations.map(({ path }) => path)).to.have.members(['/v2/aggregates', '/v2/aggregates/{name}', '/v2/aggregates/{name}/latest']);
  });
});

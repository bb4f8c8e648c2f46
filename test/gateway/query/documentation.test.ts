import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openapi } from '../../../schemas/generated/openapi.ts';
import { projectRoot } from '../../project-root.ts';
import { startQueryRest, type QueryRest } from './support/query-rest.ts';

const page = readFileSync(join(projectRoot(), 'docs', 'query.md'), 'utf8');

/** The rows of the page's first table. */
const rows = page
  .slice(page.indexOf('| token_id'))
  .split('\n\n', 1)[0]!
  .split('\n')
  .slice(2)
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => (cell.trim() === 'null' ? 'NULL' : `'${cell.trim()}'`)),
  );
const seed = `INSERT INTO public.prices (token_id, symbol, chain, price, volume_24h, updated_at) VALUES ${rows.map((row) => `(${row.join(', ')})`).join(', ')}`;

type Json = Readonly<Record<string, unknown>>;
const blocks = [...page.matchAll(/^```(json|text)\n(.*?)^```/gms)].map(([, language, text]) => ({ language, text: text! }));
/** Each question with the answer behind it. */
const examples = blocks.flatMap((block, i) => (i % 2 === 0 ? [[block, JSON.parse(blocks[i + 1]!.text) as Json] as const] : []));

interface Operation {
  readonly tags?: readonly string[];
  readonly parameters?: readonly { readonly name: string; readonly example?: unknown }[];
  readonly requestBody?: {
    readonly content: {
      readonly 'application/json': { readonly schema: object; readonly examples: Record<string, { value: object; 'x-status'?: string }> };
    };
  };
}
const operations = (openapi as { paths: Record<string, Record<string, Operation>> }).paths['/v2/query']!;

const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);
ajv.addSchema({ ...openapi, $id: 'openapi' });
function check(reference: string, value: unknown): void {
  const validate = ajv.compile({ $ref: `openapi#/components/${reference}` });
  expect(validate(value), `${ajv.errorsText(validate.errors)}\n${JSON.stringify(value)}`).to.equal(true);
}

describe('queries, documentation', function () {
  this.timeout(120_000);
  let rest: QueryRest;
  before(async () => {
    rest = await startQueryRest({ seed });
  });
  after(() => rest?.close());

  it('docs/query.md has examples', () => {
    expect(rows).to.have.length(5);
    expect(examples.length).to.be.at.least(6);
  });

  for (const [{ language, text }, answer] of examples) {
    it(`docs/query.md: ${text.replace(/\s+/g, ' ').slice(0, 100)}`, async () => {
      const url = text.trim().slice('/v2/query?'.length);
      const { body } = language === 'json' ? await rest.post(JSON.parse(text)) : await rest.get(url);
      const { next, ...found } = body as unknown as Json;
      const { next: shown, ...expected } = answer;
      expect(found).to.deep.equal(expected);
      expect(typeof next).to.equal(typeof shown);
      if (typeof next === 'string')
        expect((await rest.post({ ...(JSON.parse(text) as object), cursor: next })).body.items).to.have.length(2);
    });
  }

  it('OpenAPI is valid', async () => {
    const { valid, errors } = await new Validator().validate(structuredClone<Record<string, unknown>>(openapi));
    expect(valid, JSON.stringify(errors)).to.equal(true);
  });

  for (const [name, { value, ...example }] of Object.entries(operations['post']!.requestBody!.content['application/json'].examples)) {
    it(`OpenAPI, postQuery ${name}`, async () => {
      check('schemas/QueryRequest', value);
      const answer = await rest.post(value);
      expect(String(answer.status), answer.text).to.equal(example['x-status'] ?? '200');
      if (answer.status !== 200) return void answer.error;
      check('schemas/QueryAnswer', answer.body);
      expect(answer.body.items).not.to.have.length(0);
    });
  }

  it('OpenAPI, getQuery', async () => {
    const given = operations['get']!.parameters!.filter(({ example }) => example !== undefined);
    const answer = await rest.get(Object.fromEntries(given.map(({ name, example }) => [name, String(example)])));
    expect(answer.status, answer.text).to.equal(200);
    check('schemas/QueryAnswer', answer.body);
    expect(answer.body.items).not.to.have.length(0);
  });
});

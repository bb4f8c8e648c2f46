import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import asyncapiSchema from '@asyncapi/specs/schemas/3.0.0-without-$id.json' with { type: 'json' };
import { Ajv } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'chai';
import { parse } from 'yaml';
import { eventSchema } from '../../../schemas/generated/event.ts';
import { projectRoot } from '../../project-root.ts';

interface Message {
  readonly payload: { readonly schema: { readonly $ref: string } };
  readonly examples: readonly { readonly payload: unknown }[];
}

interface Document {
  readonly channels: Readonly<
    Record<string, { address: string; parameters?: Record<string, { enum?: string[] }>; messages: Record<string, { $ref: string }> }>
  >;
  readonly operations: Readonly<Record<string, { channel: { $ref: string } }>>;
  readonly components: { readonly messages: Readonly<Record<string, Message>> };
}

const text = readFileSync(join(projectRoot(), 'docs', 'asyncapi.yaml'), 'utf8');
const document = parse(text) as Document;
const definitions = eventSchema['$defs'] as Record<string, { properties?: Record<string, { enum?: string[] }> }>;

describe('docs/asyncapi.yaml', () => {
  it('is AsyncAPI 3, by the JSON Schema of its makers', () => {
    const ajv = new Ajv({ strict: false, allErrors: true, meta: false, validateSchema: false });
    addFormats.default(ajv);
    const validate = ajv.compile(asyncapiSchema);
    expect(validate(document), JSON.stringify(validate.errors?.slice(0, 5))).to.equal(true);
    // It tells right from wrong at all.
    expect(validate({ ...document, channels: { rows: { adress: 'x' } } })).to.equal(false);
  });

  it('has no reference that leads nowhere', () => {
    const references = [...text.matchAll(/\$ref: '([^']+)'/g)].map((match) => match[1]!);
    expect(references.length).to.be.greaterThan(10);
    const lost = references.filter((reference) => {
      const [file, pointer = ''] = reference.split('#');
      const target: unknown = file === '' ? document : file === '../schemas/event.schema.json' ? eventSchema : undefined;
      return (
        pointer
          .split('/')
          .slice(1)
          .reduce<unknown>((node, name) => (node as Record<string, unknown> | undefined)?.[name], target) === undefined
      );
    });
    expect(lost).to.deep.equal([]);
  });

  it('has a message for every kind of event, with examples that are such events', () => {
    const ajv = new Ajv2020({ strict: false });
    ajv.addSchema(eventSchema, 'event');
    const kinds = Object.values(document.components.messages).map(({ payload, examples }) => {
      const name = payload.schema.$ref.split('/').at(-1)!;
      const validate = ajv.getSchema(`event#/$defs/${name}`)!;
      for (const example of examples) expect(validate(example.payload), `${name}: ${JSON.stringify(validate.errors)}`).to.equal(true);
      return name;
    });
    const all = (eventSchema['oneOf'] as { $ref: string }[]).map(({ $ref }) => $ref.split('/').at(-1));
    expect(kinds).to.have.members(all);
    expect(document.channels['rows']!.parameters!['op']!.enum).to.have.members(definitions['rowEvent']!.properties!['op']!.enum!);
  });

  it('has one channel for every subject that capture writes', () => {
    const tests = Object.entries(document.channels).map(([name, { address, parameters = {} }]) => {
      const pattern = address
        .replaceAll('.', '\\.')
        .replace(/\{(\w+)\}/g, (_, each: string) => `(?:${parameters[each]?.enum?.join('|') ?? '[^._][^.]*'})`);
      return { name, matches: new RegExp(`^${pattern}$`) };
    });
    const subjects = {
      'ev.public.prices.insert': 'rows',
      'ev.public.a%2Eb.read': 'rows',
      'ev._schema.public.prices': 'schemas',
      'ev._message.orders': 'messages',
      'ev._mark.snapshot': 'marks',
      'ev._mark.backfill': 'marks',
      'ev._mark.gap': 'marks',
      'ev._tick': 'ticks',
    };
    for (const [subject, channel] of Object.entries(subjects))
      expect(
        tests.filter(({ matches }) => matches.test(subject)).map(({ name }) => name),
        subject,
      ).to.deep.equal([channel]);
    expect(Object.values(document.operations).map(({ channel }) => channel.$ref)).to.have.members(
      Object.keys(document.channels).map((name) => `#/channels/${name}`),
    );
  });
});

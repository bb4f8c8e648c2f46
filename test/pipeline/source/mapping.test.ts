import { expect } from 'chai';
import fc from 'fast-check';
import { runTestProgram } from '../../support/programs.ts';
import { columnText, SourceBench, type ReadEvent } from './support/source-bench.ts';
import { allValueCases, createValueTable, insertValues, valueCases, valueSetUp } from './support/value-cases.ts';

const schema = `Quoted_" . Schema`;
const table = 'T a.b';
const quoted = `"Quoted_"" . Schema"."T a.b"`;

describe('mapping of values', () => {
  let bench: SourceBench;
  let streamed: ReadEvent;
  let copied: ReadEvent;

  before(async () => {
    bench = await SourceBench.open({
      setUp: [
        ...valueSetUp,
        `CREATE SCHEMA "Quoted_"" . Schema"`,
        createValueTable(quoted),
        'CREATE TABLE arrays (id int PRIMARY KEY, a text[])',
      ],
    });
    await bench.addSlot('_zone');
    const events = await bench.captured(insertValues(quoted, 1));
    expect(events.map(({ event }) => event.type)).to.deep.equal(['schema', 'row']);
    streamed = events[1]!;
    [copied] = (await bench.copy(schema, table)) as [ReadEvent];
  });
  after(() => bench?.close());

  let column = 0;
  for (const [rule, cases] of Object.entries(valueCases)) {
    describe(rule, () => {
      for (const [type, literal, json] of cases) {
        const name = `c${column++}`;
        it(`${type} ${literal.length > 60 ? `${literal.slice(0, 60)}…` : literal}`, () => {
          expect(columnText(streamed.raw, name)).to.equal(json);
          expect(columnText(copied.raw, name)).to.equal(json);
        });
      }
    });
  }

  it('is the same by byte in the stream and in a snapshot', () => {
    const row = (raw: string): string => /,"after":(.*?),("jsonNull"|"tx"|"at"):/s.exec(raw)![1]!;
    expect(row(copied.raw)).to.equal(row(streamed.raw));
  });

  it('tells JSON null from SQL NULL in the stream and in a snapshot', () => {
    const nulls = allValueCases.flatMap(([type, literal], i) => (/^jsonb?$/.test(type) && literal === `'null'` ? [`c${i}`] : []));
    expect(nulls).to.have.length(2);
    expect(streamed.event['jsonNull']).to.deep.equal(nulls);
    expect(copied.event['jsonNull']).to.deep.equal(nulls);
  });

  it('names tables and subjects by their names, whatever is in them', () => {
    const subject = 'ev.Quoted_"%20%2E%20Schema.T%20a%2Eb';
    expect([streamed.subject, copied.subject]).to.deep.equal([`${subject}.insert`, `${subject}.read`]);
    expect([streamed.event['table'], copied.event['table']]).to.deep.equal([`${schema}.${table}`, `${schema}.${table}`]);
  });

  it('does not depend on the time zone of the process', async () => {
    const program = runTestProgram('run-value-reader', [bench.url, bench.slot('_zone'), schema, table], {
      env: { TZ: 'America/New_York' },
    });
    const answer = (await program.nextLine()) as { offset: number; streamed: string; copied: string };
    expect(answer.offset).to.equal(300);
    expect(answer.streamed).to.equal(streamed.raw);
    expect(streamed.raw).to.contain(`,"after":${answer.copied},`);
    expect(await program.ended).to.equal(0);
  });

  it('of arrays that Postgres itself has printed, of any text and shape', async () => {
    const element = fc.oneof(
      fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\0', '')),
      fc.constantFrom('', 'NULL', 'null', '{', '}', ',', '"', '\\', ' ', '\t', '\v', '\n', '\\N'),
      fc.constant(null),
    );
    const shapes = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 });
    const arrays = shapes.chain((lengths) =>
      lengths.reduceRight<fc.Arbitrary<unknown>>((inner, length) => fc.array(inner, { minLength: length, maxLength: length }), element),
    );
    const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    const samples = fc.sample(arrays, { numRuns: 200, seed });
    await bench.client.query('BEGIN');
    for (const [id, sample] of samples.entries()) await bench.client.query('INSERT INTO arrays VALUES ($1, $2::text[])', [id, sample]);
    const events = (await bench.captured('COMMIT')).filter(({ event }) => event.type === 'row');
    const valueOf = ({ event }: ReadEvent): string => JSON.stringify((event['after'] as { a: unknown }).a);
    const wanted = samples.map((sample) => JSON.stringify(sample));
    expect(events.map(valueOf), `TEST_SEED=${seed}`).to.deep.equal(wanted);
    expect((await bench.copy('public', 'arrays', { limit: 1_000 })).map(valueOf), `TEST_SEED=${seed}`).to.deep.equal(wanted);
  });
});

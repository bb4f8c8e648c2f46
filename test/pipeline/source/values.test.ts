import { expect } from 'chai';
import fc from 'fast-check';
import { arrayValue } from '../../../pipeline/source/arrays.ts';
import { JsonWriter } from '../../../pipeline/source/json-writer.ts';
import { builtinValues, isJsonNull, stringValue, type ValueEncoder } from '../../../pipeline/source/values.ts';

/** Encodes a value that stands somewhere in a larger buffer, as the wire gives it. */
function encode(encoder: ValueEncoder, text: string): string {
  const value = Buffer.from(text);
  const source = Buffer.concat([Buffer.from('{"1-'), value, Buffer.from('C+00}')]);
  const out = new JsonWriter();
  encoder(out, source, 4, 4 + value.length);
  return out.take().toString('utf8');
}

const oids = {
  bool: 16,
  bytea: 17,
  int2: 21,
  int4: 23,
  oid: 26,
  xid: 28,
  json: 114,
  float4: 700,
  float8: 701,
  timestamp: 1114,
  timestamptz: 1184,
  jsonb: 3802,
};
const of = (type: keyof typeof oids): ValueEncoder => builtinValues.get(oids[type])!;

/** Postgres's text of a value of a built-in type, and its JSON. */
const examples: readonly (readonly [type: keyof typeof oids, text: string, json: string])[] = [
  ['bool', 't', 'true'],
  ['bool', 'f', 'false'],
  ['int2', '-32768', '-32768'],
  ['int4', '2147483647', '2147483647'],
  ['oid', '4294967295', '4294967295'],
  ['xid', '4294967295', '4294967295'],
  ['float4', '1e-45', '1e-45'],
  ['float4', '3.4028235e+38', '3.4028235e+38'],
  ['float8', '0.30000000000000004', '0.30000000000000004'],
  ['float8', '5e-324', '5e-324'],
  ['float8', '-0.5', '-0.5'],
  ['float8', '0', '0'],
  ['float8', '-0', '"-0"'],
  ['float8', 'NaN', '"NaN"'],
  ['float8', 'Infinity', '"Infinity"'],
  ['float8', '-Infinity', '"-Infinity"'],
  ['timestamp', '2016-11-04 13:51:30', '"2016-11-04T13:51:30"'],
  ['timestamp', '2016-11-04 13:51:30.1', '"2016-11-04T13:51:30.1"'],
  ['timestamp', '0001-01-01 00:00:00', '"0001-01-01T00:00:00"'],
  ['timestamp', '9999-12-31 23:59:59.999999', '"9999-12-31T23:59:59.999999"'],
  ['timestamp', '10000-01-01 00:00:00', '"10000-01-01 00:00:00"'],
  ['timestamp', '294276-12-31 23:59:59.999999', '"294276-12-31 23:59:59.999999"'],
  ['timestamp', '0001-12-31 23:59:59 BC', '"0001-12-31 23:59:59 BC"'],
  ['timestamp', '-infinity', '"-infinity"'],
  ['timestamptz', '2016-11-04 11:51:30+00', '"2016-11-04T11:51:30Z"'],
  ['timestamptz', '2016-11-04 11:51:30.123456+00', '"2016-11-04T11:51:30.123456Z"'],
  ['timestamptz', '10000-01-01 00:00:00+00', '"10000-01-01 00:00:00+00"'],
  ['timestamptz', '0044-03-15 12:00:00+00 BC', '"0044-03-15 12:00:00+00 BC"'],
  ['timestamptz', 'infinity', '"infinity"'],
  ['json', '{ "a" : 1e400,\n\t"a":2 }', '{ "a" : 1e400,\n\t"a":2 }'],
  ['jsonb', '12345678901234567890.10', '12345678901234567890.10'],
];

/** An array as a value of the model: text, NULL, or an array of the same. */
type Nested = string | null | readonly Nested[];

const elements = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('', 'NULL', 'null', 'Null', 'NULLS', '{', '}', '{}', ',', '"', '\\', ' ', '\t', '\v', '[0:1]={1,2}', 'é😀'),
  fc.constant(null),
);

/** Arrays of one to three dimensions, of equal lengths within each, as Postgres has them. */
const arrays: fc.Arbitrary<Nested> = fc
  .array(fc.integer({ min: 1, max: 4 }), { minLength: 0, maxLength: 3 })
  .chain((lengths) =>
    lengths.length === 0
      ? fc.constant([])
      : lengths.reduceRight<fc.Arbitrary<Nested>>((inner, length) => fc.array(inner, { minLength: length, maxLength: length }), elements),
  );

/** What `array_out` prints: quotes where the text is empty, looks like NULL, or holds one of the format's own characters or white space. */
function arrayOut(value: Nested, delimiter: string): string {
  if (value === null) return 'NULL';
  if (typeof value !== 'string') return `{${value.map((element) => arrayOut(element, delimiter)).join(delimiter)}}`;
  const plain = value !== '' && value.toUpperCase() !== 'NULL' && !/[{}"\\ \t\n\v\f\r]/.test(value) && !value.includes(delimiter);
  return plain ? value : `"${value.replace(/["\\]/g, (char) => `\\${char}`)}"`;
}

describe('values', () => {
  for (const [type, text, json] of examples) it(`${type} ${text} → ${json}`, () => expect(encode(of(type), text)).to.equal(json));

  it('bytea of any bytes becomes base64', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (value) => {
        expect(encode(of('bytea'), `\\x${Buffer.from(value).toString('hex')}`)).to.equal(
          JSON.stringify(Buffer.from(value).toString('base64')),
        );
      }),
    );
  });

  it('finite floats stay the same number', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        const json = encode(of('float8'), Object.is(value, -0) ? '-0' : String(value));
        if (Object.is(value, -0)) expect(json).to.equal('"-0"');
        else expect(JSON.parse(json)).to.equal(value);
      }),
    );
  });

  it('all else becomes a string of the same text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(encode(stringValue, text)).to.equal(JSON.stringify(text));
      }),
    );
  });

  it('JSON null is told from other JSON, also with white space around it', () => {
    const isNull = (text: string): boolean => isJsonNull(Buffer.from(`x${text}y`), 1, 1 + text.length);
    for (const text of ['null', ' null', 'null\n', '\t null ']) expect(isNull(text), JSON.stringify(text)).to.equal(true);
    for (const text of ['"null"', '[null]', 'nul', '0', 'false', '{}', ' '.repeat(70)])
      expect(isNull(text), JSON.stringify(text)).to.equal(false);
  });
});

describe('arrays', () => {
  for (const delimiter of [',', ';']) {
    it(`of any text and shape become the same arrays in JSON (delimiter ${delimiter})`, () => {
      fc.assert(
        fc.property(arrays, (value) => {
          expect(encode(arrayValue(stringValue, delimiter), arrayOut(value, delimiter))).to.equal(JSON.stringify(value));
        }),
        { numRuns: 1_000 },
      );
    });
  }

  it('map their elements', () => {
    expect(encode(arrayValue(of('float8'), ','), '{1.5,NaN,NULL,-0}')).to.equal('[1.5,"NaN",null,"-0"]');
    expect(encode(arrayValue(of('timestamptz'), ','), '{"2016-11-04 11:51:30.5+00",infinity}')).to.equal(
      '["2016-11-04T11:51:30.5Z","infinity"]',
    );
    expect(encode(arrayValue(of('bytea'), ','), '{"\\\\x00ff","\\\\x"}')).to.equal('["AP8=",""]');
    expect(encode(arrayValue(of('jsonb'), ','), '{"{\\"a\\": [1, null]}",1.10,"null"}')).to.equal('[{"a": [1, null]},1.10,null]');
  });

  it('with other bounds than 1 stay as Postgres prints them', () => {
    expect(encode(arrayValue(of('int4'), ','), '[0:1]={5,6}')).to.equal('"[0:1]={5,6}"');
    expect(encode(arrayValue(stringValue, ','), '[2:2][1:1]={{"a\\"b"}}')).to.equal('"[2:2][1:1]={{\\"a\\\\\\"b\\"}}"');
  });

  it('that are cut off are an error, not a loop', () => {
    for (const text of ['{1,2', '{"a', '{{1}', '{1}']) {
      const source = Buffer.from(text === '{1}' ? '{"a"x}' : text);
      expect(() => arrayValue(stringValue, ',')(new JsonWriter(), source, 0, source.length), text).to.throw('malformed array text');
    }
  });
});

import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'chai';
import { conditionSchema } from '../../schemas/generated/condition.ts';
import { ruleSchema } from '../../schemas/generated/rule.ts';
import { checkRule, type KnownTable } from '../../schemas/rule.ts';

const columns = new Map([
  ['token_id', 'text'],
  ['chain', 'character varying(20)'],
  ['price', 'numeric'],
  ['amount', 'numeric(10,2)'],
  ['data', 'jsonb'],
]);
const base = { name: 'high price', table: 'public.prices', when: { field: 'price', op: 'gt', value: 100 } };
const crossing = { ...base, when: { field: 'price', op: 'crosses_above', value: 100 } };

function faultsOf(body: unknown, known: KnownTable = columns): readonly string[] {
  return (checkRule(body, () => known).faults ?? []).map(({ field, message }) => `${field} ${message}`);
}

/** By the JSON Schema alone. */
function schemaCheck(): (body: unknown) => boolean {
  const ajv = new Ajv2020({ strictTypes: false, strictRequired: false });
  addFormats.default(ajv, ['date-time', 'uuid']);
  ajv.addSchema(conditionSchema).addSchema(ruleSchema);
  const validate = ajv.getSchema(`${String(ruleSchema['$id'])}#/$defs/ruleRequest`)!;
  return (body) => validate(body) === true;
}

const secret = (bytes: number): string => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`;

describe('rule check: what is refused, and what is said', () => {
  const edges = 'crosses_above, crosses_below and changed hold only for a moment';
  const cases: readonly (readonly [name: string, change: object, faults: readonly (RegExp | string)[]])[] = [
    ['no name', { name: undefined }, ['name is missing: what people will call the rule']],
    ['a blank name', { name: ' ' }, ['name is " ", and must be text']],
    ['a name of two lines', { name: 'a\nBcc: b' }, ['name must be one line of text, without control characters']],
    ['a long name', { name: 'a'.repeat(201) }, ['name has more than the 200 characters that are allowed']],
    ['no table', { table: undefined }, ['table is missing: <schema>.<table>']],
    ['a table without schema', { table: 'prices' }, ['table is "prices", and must be <schema>.<table>, like public.prices']],
    ['a schema without table', { table: 'public.' }, ['table is "public.", and must be <schema>.<table>']],
    [
      "one of Headwater's own tables",
      { table: 'headwater.alert_history' },
      [/^table is headwater\.alert_history, but alerts about Headwater's own tables/],
    ],
    ['no condition', { when: undefined }, ['when is missing: the condition at which the alert fires']],
    ['a condition of another type', { when: 5 }, [/^when must be one of/]],
    [
      'text with an unknown column',
      { when: 'price > 1 AND\npricd > 2' },
      ['when at line 2, column 1: the column is "pricd", which is no column of the table; did you mean price?'],
    ],
    ['an unknown column in clear', { clear: { field: 'x', op: 'lt', value: 1 } }, ['clear.field is "x", which is no column of the table']],
    [
      'an edge in clear',
      { clear: 'price CROSSES BELOW 5' },
      ['clear at line 1, column 7: the operator is crosses_below, which holds only for a moment and has no place in clear'],
    ],
    [
      'an unknown column in match',
      { match: { chian: ['Base'] } },
      ['match.chian is "chian", which is no column of the table; did you mean chain?'],
    ],
    [
      'a value of another type in match',
      { match: { price: [1, 'x'] } },
      ['match.price[1] is "x", and must be a number (price is numeric)'],
    ],
    [
      'a value in another spelling than that of events',
      { match: { token_id: ['x'], amount: ['1.50', 1.5] } },
      ['match.amount[1] is 1.5, which events have as "1.50": write it like that (it is numeric(10,2))'],
    ],
    ['null in match', { match: { chain: [null] } }, [/^match\.chain\[0\] is null/]],
    ['a value for a list in match', { match: { chain: 'Base' } }, ['match.chain is "Base", and must be a list of at least one value']],
    ['json in match', { match: { data: [1] } }, ['match.data cannot be matched: values of type jsonb equal nothing']],
    ['a list for match', { match: [] }, [/^match is \[\], and must be an object/]],
    [
      '17 columns in match',
      { match: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`c${i}`, [1]])) },
      ['match has more than the 16 columns that are allowed'],
    ],
    ['an unknown column in groupBy', { groupBy: ['chain', 'token'] }, ['groupBy[1] is "token", which is no column of the table']],
    ['a column twice', { groupBy: ['chain', 'chain'] }, ['groupBy[1] is chain, which stands in the list already']],
    ['json in groupBy', { groupBy: ['data'] }, ['groupBy[0] is data, whose values equal nothing: it is jsonb']],
    ['an empty groupBy', { groupBy: [] }, [/^groupBy is \[\], and must be a list of columns; left out, it is the primary key$/]],
    ['a duration that is none', { for: '5 minutes' }, ['for is "5 minutes", and must be a duration like 30s, 5m, 1h or 2d, up to 366d']],
    ['parts of a second', { cooldown: '1500ms' }, ['cooldown is "1500ms", and must be in whole seconds']],
    ['an unknown severity', { severity: 'warn' }, ['severity is "warn", and must be one of info, warning, critical']],
    ['text for enabled', { enabled: 'yes' }, ['enabled is "yes", and must be true or false']],
    ['an unknown member', { keepFireingFor: '5m' }, ['keepFireingFor is no member of a rule; did you mean keepFiringFor?']],
    ['a member by the name of a built-in', JSON.parse('{"__proto__":1}') as object, ['__proto__ is no member of a rule']],
    [
      '11 channels',
      { channels: Array.from({ length: 11 }, () => ({ type: 'push' })) },
      ['channels has more than the 10 channels that are allowed'],
    ],
    [
      'an unknown channel',
      { channels: [{ type: 'webhok', url: 'https://a' }] },
      [/^channels\[0\]\.type is "webhok", and must be one of webhook, email, push; did you mean webhook\?$/],
    ],
    ['a webhook without URL', { channels: [{ type: 'webhook' }] }, ['channels[0].url is missing: where to post to']],
    ['a URL of another kind', { channels: [{ type: 'webhook', url: 'ftp://a.b' }] }, [/^channels\[0\]\.url must be a URL like/]],
    [
      'a URL with a password',
      { channels: [{ type: 'webhook', url: 'https://u:p@a.b/' }] },
      ['channels[0].url must not have a user name or password in it'],
    ],
    ['a URL with white space', { channels: [{ type: 'webhook', url: 'https://a.b/\n' }] }, [/^channels\[0\]\.url must be a URL like/]],
    [
      'a short secret',
      { channels: [{ type: 'webhook', url: 'https://a.b', secret: secret(23) }] },
      [/^channels\[0\]\.secret must be whsec_ followed by 24 to 64 bytes/],
    ],
    [
      'a long secret',
      { channels: [{ type: 'webhook', url: 'https://a.b', secret: secret(65) }] },
      [/^channels\[0\]\.secret must be whsec_/],
    ],
    [
      'a member of another channel',
      { channels: [{ type: 'push', to: 'a@b.c' }] },
      ['channels[0].to is no member of a channel of type push'],
    ],
    [
      'two addresses',
      { channels: [{ type: 'email', to: 'a@b.co,c@d.co' }] },
      [/^channels\[0\]\.to must be one email address, not a list$/],
    ],
    ['an address with a header', { channels: [{ type: 'email', to: 'a@b.co\r\nBcc: c@d.co' }] }, [/must be one plain email address/]],
  ];
  for (const [name, change, expected] of cases) {
    it(name, () => {
      const faults = faultsOf({ ...base, ...change });
      expect(faults).to.have.length(expected.length);
      for (const [i, fault] of faults.entries()) {
        const wanted = expected[i]!;
        if (typeof wanted === 'string') expect(fault).to.equal(wanted);
        else expect(fault).to.match(wanted);
      }
    });
  }

  it('an edge with what only levels have', () => {
    expect(faultsOf({ ...crossing, for: '1m', keepFiringFor: '2m', clear: base.when })).to.deep.equal([
      `for is 1m, and must be 0s: ${edges}`,
      `keepFiringFor is 2m, and must be 0s: ${edges}, and such an alert does not resolve`,
      `clear must be left out: ${edges}, and such an alert does not resolve`,
    ]);
    expect(faultsOf({ ...crossing, for: '0m', keepFiringFor: 0, clear: null, cooldown: '5m' })).to.deep.equal([]);
  });

  it('a table that has no rules, in the words of who knows it', () => {
    expect(faultsOf(base, 'is not captured')).to.deep.equal(['table is not captured']);
  });

  it('secrets are never repeated', () => {
    const text = JSON.stringify(
      checkRule({ ...base, channels: [{ type: 'webhook', url: 'https://a.b', secret: 'whsec_hunter2' }] }, () => columns),
    );
    expect(text).to.include('channels[0].secret').and.not.include('hunter2');
  });

  it('everything at once', () => {
    const faults = checkRule(
      { table: 'public.prices', when: 'price >', match: 1, groupBy: 1, severity: 1, channels: 1, enabled: 1, x: 1 },
      () => columns,
    ).faults!;
    expect(faults.map(({ field }) => field).sort()).to.deep.equal([
      'channels',
      'enabled',
      'groupBy',
      'match',
      'name',
      'severity',
      'when',
      'x',
    ]);
  });
});

describe('rule check: what is accepted', () => {
  it('the least, with every default', () => {
    expect(checkRule(base, () => columns)).to.deep.equal({
      rule: {
        ...base,
        match: {},
        groupBy: undefined,
        for: '0s',
        clear: undefined,
        keepFiringFor: '0s',
        cooldown: '0s',
        severity: 'info',
        channels: [],
        enabled: true,
      },
    });
  });

  const full = {
    ...base,
    match: { chain: ['Base', 'Optimism'] },
    groupBy: ['chain', 'token_id'],
    for: '5m',
    clear: { field: 'price', op: 'lt', value: '99.50' },
    keepFiringFor: '90s',
    cooldown: '1h',
    severity: 'critical',
    channels: [
      { type: 'webhook', url: 'https://example.com/hook?x=1', secret: secret(64) },
      { type: 'email', to: "o'hara+x@mail.example.com" },
      { type: 'push' },
    ],
    enabled: false,
  };

  it('the most, as it is', () => {
    expect(checkRule(full, () => columns)).to.deep.equal({ rule: full });
    expect(checkRule(full, () => undefined)).to.deep.equal({ rule: full });
  });

  it('conditions as text, which become trees', () => {
    const { rule } = checkRule({ ...base, when: 'price > 100', clear: 'price < 99.50' }, () => columns);
    expect(rule!.when).to.deep.equal(base.when);
    expect(rule!.clear).to.deep.equal({ field: 'price', op: 'lt', value: 99.5 });
  });

  it('what the JSON Schema accepts, and refused what it refuses', () => {
    const valid = schemaCheck();
    const change = (changes: object): object => ({ ...full, ...changes });
    const bodies: readonly object[] = [
      base,
      full,
      change({ when: 'price > 1', clear: null, groupBy: null }),
      change({ name: '' }),
      change({ extra: 1 }),
      change({ table: 'prices' }),
      change({ for: '5 m' }),
      change({ severity: 'x' }),
      change({ channels: [{ type: 'push', x: 1 }] }),
      change({ channels: [{ type: 'email' }] }),
      change({ channels: [{ type: 'webhook', url: 'x' }] }),
      change({ match: { chain: [] } }),
      change({ match: { chain: 'x' } }),
      change({ groupBy: [] }),
      change({ enabled: 1 }),
      change({ when: { and: [] } }),
      change({ when: { field: 'price', op: 'gt' } }),
      change({ when: { field: 'price', op: 'in', value: [null] } }),
      change({ when: { field: 'price', op: 'between', value: [1] } }),
      change({ when: { field: 'price', op: 'is_null', value: 'x' } }),
      change({ when: { not: { absent_for: '5m' } } }),
      change({ when: { absent_for: 5 } }),
      change({ when: { field: 'price', change: '1h', op: 'between', value: [1, 2] } }),
      change({ when: { field: 'price', change: '1h', op: 'like', value: '1' } }),
      { ...crossing },
      { ...crossing, when: { field: 'price', op: 'changed' } },
    ];
    for (const body of bodies) expect(valid(body), JSON.stringify(body)).to.equal(checkRule(body, () => columns).rule !== undefined);
  });
});

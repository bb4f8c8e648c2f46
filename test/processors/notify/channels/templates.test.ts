import { expect } from 'chai';
import fc from 'fast-check';
import type { NoticeAlert } from '../../../../processors/notify/channel.ts';
import { oneLine } from '../../../../processors/notify/channels/one-line.ts';
import { htmlOf } from '../../../../processors/notify/channels/templates/html.ts';
import { messageOfNotice } from '../../../../processors/notify/channels/templates/message.ts';
import { textOf } from '../../../../processors/notify/channels/templates/text.ts';
import {
  entity,
  finding,
  lasting,
  linkTo,
  number,
  resolvedBecause,
  utc,
} from '../../../../processors/notify/channels/templates/wording.ts';
import { printCondition } from '../../../../schemas/condition/print.ts';
import type { RuleCondition } from '../../../../schemas/condition/condition.ts';
import { alert, digest, firing, resolved, rule } from './support/notices.ts';

const wording = { locale: 'en', link: 'https://console.example.com/{alert}' };
const plain = { locale: 'en', link: undefined };

describe('messages', () => {
  it('say what, where, since when and why', () => {
    expect(textOf(messageOfNotice(firing(), wording))).to.equal(`Ether is dear
price is 1,234,567.10, above 1,000,000

Where      token_id weth, chain Base
Since      2026-11-22 20:35:29 UTC
Condition  price > 1000000
Table      public.prices
Severity   warning

https://console.example.com/0b9a3c1e-5d0e-5f6a-9d53-1c2f3a4b5c6d
`);
  });

  it('are short when it is over, and say so when that was not the condition', () => {
    expect(textOf(messageOfNotice(resolved(), plain))).to.equal(`Ether is dear
Resolved after 1 h 5 min

Where  token_id weth, chain Base
From   2026-11-22 20:35:29 UTC
Until  2026-11-22 21:40:30 UTC
`);
    expect(messageOfNotice(resolved({ alert: { reason: 'rule_edited' } }), plain).lead).to.equal(
      'Resolved after 1 h 5 min: the rule was edited',
    );
    expect(
      ['rule_disabled', 'rule_deleted', 'entity_deleted', 'condition', 'new_reason'].map((reason) => resolvedBecause({ ...alert, reason })),
    ).to.deep.equal(['the rule was switched off', 'the rule was deleted', 'what it was about is gone', undefined, undefined]);
  });

  it('sum many up by rule', () => {
    const [head, lead, , ...rest] = textOf(messageOfNotice(digest(37), plain)).split('\n');
    expect([head, lead]).to.deep.equal(['Alerts: 25 firing, 12 resolved', 'More happened at once than is sent one by one']);
    expect(rest).to.include('Ether is dear (7 firing, 3 resolved)').and.include('Another rule (7 firing, 3 resolved)');
    expect(rest).to.include('- token_id token-0: price is 1,234,567.10, above 1,000,000 (2026-11-22 20:35:29 UTC)');
    expect(rest).to.include('- token_id token-5: resolved (2026-11-22 20:36:00 UTC)');
    expect(rest.filter((line) => line.startsWith('- '))).to.have.length(20);
    expect(rest.at(-2)).to.equal('and 17 more');
    expect(textOf(messageOfNotice(digest(3), plain))).to.not.include('more\n');
  });

  it('are HTML without scripts or anything from elsewhere, whatever the texts are', () => {
    const evil = `"><img src=x onerror=alert(1)>'&<script>`;
    const bad = firing({
      rule: { name: evil, condition: evil, table: evil, id: evil },
      alert: { entity: { [evil]: evil }, value: evil, id: evil },
    });
    for (const notice of [bad, firing(), resolved(), digest(30)]) {
      const html = htmlOf(messageOfNotice(notice, wording));
      const tags = [...html.matchAll(/<\/?([a-z0-9!]+)/gi)].map(([, tag]) => tag!.toLowerCase());
      const known = [
        '!doctype',
        'html',
        'head',
        'meta',
        'title',
        'style',
        'body',
        'div',
        'p',
        'h1',
        'h2',
        'span',
        'table',
        'tr',
        'th',
        'td',
        'ul',
        'li',
        'a',
      ];
      expect(tags.filter((tag) => !known.includes(tag))).to.deep.equal([]);
      for (const [tag] of html.matchAll(/<[^>]*>/g)) expect(tag).to.not.match(/\s(?:src|on\w+)=|url\(/i);
      expect(html).to.not.match(/@import/i);
      for (const [, url] of html.matchAll(/href="([^"]*)"/g)) expect(url).to.match(/^https:\/\/console\.example\.com\/[\w%.!'()*~&#;-]+$/);
    }
  });

  it('follow light and dark', () => {
    expect(htmlOf(messageOfNotice(firing(), plain)))
      .to.include('<meta name="color-scheme" content="light dark">')
      .and.not.match(/background(?:-color)?:#f/);
  });
});

describe('the wording', () => {
  /** Condition → words, with the value 104.25. */
  const words: readonly (readonly [RuleCondition, string])[] = [
    [{ field: 'price', op: 'gt', value: 100 }, 'price is 104.25, above 100'],
    [{ field: 'price', op: 'gte', value: '1234567890123456789.10' }, 'price is 104.25, at or above 1,234,567,890,123,456,789.10'],
    [{ field: 'price', op: 'lt', value: -5 }, 'price is 104.25, below -5'],
    [{ field: 'price', op: 'lte', value: 0.5 }, 'price is 104.25, at or below 0.5'],
    [{ field: 'price', op: 'eq', value: 104.25 }, 'price is 104.25'],
    [{ field: 'price', op: 'ne', value: 1000 }, 'price is 104.25, not 1,000'],
    [{ field: 'my "odd" column', op: 'ne', value: 'a "b" c' }, 'my "odd" column is 104.25, not a "b" c'],
    [{ field: 'price', op: 'crosses_above', value: 100 }, 'price rose above 100, to 104.25'],
    [{ field: 'price', op: 'crosses_below', value: 1000 }, 'price fell below 1,000, to 104.25'],
    [{ field: 'price', op: 'changed' }, 'price changed to 104.25'],
    [{ field: 'price', change: '1h', op: 'lt', value: -5 }, 'price is 104.25; its change in 1h is below -5 %'],
    [{ absent_for: '10m' }, 'Nothing was heard for 10m'],
    [
      {
        and: [
          { field: 'price', op: 'gt', value: 1 },
          { field: 'x', op: 'eq', value: 'y' },
        ],
      },
      'price is 104.25',
    ],
    [
      { or: [{ and: [{ not: { field: 'price', op: 'gt', value: 1 } }, { field: 'x', op: 'is_null' }] }, { field: 'z', op: 'changed' }] },
      'price is 104.25',
    ],
    [{ field: 'price', op: 'between', value: [1, 2000] }, 'price is 104.25'],
    [{ field: 'Preis', op: 'in', value: ['a', 'b'] }, 'Preis is 104.25'],
    [{ field: 'größe', op: 'gt', value: 1 }, 'größe is 104.25, above 1'],
  ];
  for (const [condition, text] of words)
    it(`of ${printCondition(condition)} is ${text}`, () => {
      expect(finding({ ...alert, value: '104.25' }, { ...rule, condition: printCondition(condition) }, 'en')).to.equal(text);
    });

  it('shows texts as they are, and nothing for an unknown value', () => {
    expect(finding({ ...alert, value: 'NaN' }, { ...rule, condition: 'price > 1' }, 'en')).to.equal('price is NaN, above 1');
    expect(finding({ ...alert, value: '  paused\n' }, { ...rule, condition: 'state = "paused"' }, 'en')).to.equal('state is paused');
    expect(finding({ ...alert, value: null }, { ...rule, condition: 'state IS NULL' }, 'en')).to.equal(undefined);
    expect(messageOfNotice(firing({ alert: { value: null }, rule: { condition: 'state IS NULL' } }), plain).lead).to.equal('state IS NULL');
  });

  it('writes numbers as the locale does, with every digit', () => {
    expect(number('1234567.10', 'en')).to.equal('1,234,567.10');
    expect(number('1234567.10', 'de')).to.equal('1.234.567,10');
    expect(number('1234567.10', 'de-CH')).to.match(/^1['’]234['’]567\.10$/);
    expect(number('-0.000000000000000001', 'en')).to.equal('-0.000000000000000001');
    expect(number('9007199254740993', 'en')).to.equal('9,007,199,254,740,993');
    expect(number('123456789012345678901234567890.123456789012345678', 'en')).to.equal(
      '123,456,789,012,345,678,901,234,567,890.123456789012345678',
    );
    for (const text of ['NaN', 'Infinity', '1e400', '']) expect(number(text, 'en')).to.equal(text);
    expect(number('1'.repeat(200), 'en')).to.match(/^1{59}…$/);
  });

  it('never rounds: without its separators a number is what it was', () => {
    const digits = fc.stringMatching(/^(?:0|[1-9]\d{0,27})(?:\.\d{1,28})?$/);
    fc.assert(
      fc.property(fc.constantFrom('', '-'), digits, (sign, text) => {
        expect(number(sign + text, 'en').replaceAll(',', '')).to.equal(sign + text);
      }),
    );
  });

  it('writes times and spans', () => {
    expect(utc('2026-11-22T20:35:29.123456Z')).to.equal('2026-11-22 20:35:29 UTC');
    expect(utc('2026-11-22T20:35:29Z')).to.equal('2026-11-22 20:35:29 UTC');
    expect(utc('2026-11-22T21:35:29.5+01:00')).to.equal('2026-11-22 20:35:29 UTC');
    expect(utc('some day')).to.equal('some day');
    const after = (seconds: number): string =>
      lasting('2026-01-01T00:00:00Z', new Date(Date.UTC(2026, 0, 1) + seconds * 1_000).toISOString());
    expect([0, 1, 59, 60, 61, 3_600, 3_659, 3_661, 90_000, 86_400 * 400 + 1].map(after)).to.deep.equal([
      'less than a second',
      '1 s',
      '59 s',
      '1 min',
      '1 min 1 s',
      '1 h',
      '1 h',
      '1 h 1 min',
      '1 d 1 h',
      '400 d',
    ]);
  });

  it('names the entity by its columns', () => {
    const of = (value: NoticeAlert['entity']): string => entity({ ...alert, entity: value });
    expect(of({ id: 7, name: 'a\nb', ok: true, none: null, list: ['x'] })).to.equal('id 7, name a b, ok true, none null, list ["x"]');
    expect(of({})).to.equal('');
    expect(of(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`c${i}`, 'x'.repeat(500)])))).to.have.length(300);
  });

  it('links only where it was told to', () => {
    const tricky = { ...alert, id: '../../x?y=z#"<' };
    expect(linkTo(tricky, rule, wording)).to.equal('https://console.example.com/..%2F..%2Fx%3Fy%3Dz%23%22%3C');
    expect(linkTo({ ...alert, id: '{rule}' }, rule, { locale: 'en', link: 'https://x.example/{alert}' })).to.equal(
      'https://x.example/%7Brule%7D',
    );
    expect(linkTo(alert, rule, plain)).to.equal(undefined);
  });

  it('keeps lines single and visible', () => {
    expect(oneLine(' a\r\n\tb\u2028c\u0000d\u001b[0m\u202ee\u200bf\ufeff ', 50)).to.equal('a b cd[0mef');
    expect(oneLine('👩\u200d💻 می\u200cخواهم', 50)).to.equal('👩\u200d💻 می\u200cخواهم');
    expect(oneLine('😀😀😀', 4)).to.equal('😀…');
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), fc.integer({ min: 1, max: 20 }), (text, max) => {
        const line = oneLine(text, max);
        expect(line.length).to.be.at.most(max);
        expect(line).to.not.match(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]|(?![\u200c\u200d])\p{Cf}/u);
      }),
    );
  });
});

import { expect } from 'chai';
import { textInEvents } from '../../../schemas/condition/event-text.ts';

describe('text of a value in events', () => {
  const cases: readonly (readonly [type: string, value: string | number | boolean, text: string | undefined])[] = [
    ['integer', '+007', '7'],
    ['bigint', '5e3', '5000'],
    ['bigint', '-9223372036854775808', '-9223372036854775808'],
    ['integer', '-0.0', '0'],
    ['numeric(10,2)', 1.5, '1.50'],
    ['numeric(10,2)', '.5', '0.50'],
    ['numeric(10,2)', '-1e-2', '-0.01'],
    ['numeric(10,2)', '1.555', undefined],
    ['numeric(78,0)', '1e21', '1000000000000000000000'],
    ['numeric', '1.50', undefined],
    ['numeric(10,2)', 'NaN', undefined],
    ['double precision', '1e3', '1000'],
    ['real', 0.1, '0.1'],
    ['real', 'Infinity', undefined],
    ['uuid', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
    ['character(5)', 'a🦀', 'a🦀   '],
    ['character varying(5)', 'ab', undefined],
    ['timestamp with time zone', '2016-11-04T13:51:30.120+02', '2016-11-04T11:51:30.12Z'],
    ['timestamp with time zone', '1969-12-31 23:59:59.999999Z', '1969-12-31T23:59:59.999999Z'],
    ['timestamp(3) without time zone', '2016-11-04', '2016-11-04T00:00:00'],
    ['timestamp with time zone', 'infinity', undefined],
    ['date', '2016-11-04', '2016-11-04'],
    ['time without time zone', '12:00', '12:00:00'],
    ['boolean', true, undefined],
    ['mood', 'Ok', undefined],
  ];
  for (const [type, value, text] of cases) {
    it(`${type} ${value}: ${text}`, () => expect(textInEvents(type, value)).to.equal(text));
  }
});

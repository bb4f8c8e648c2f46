import { expect } from 'chai';
import { createValidators } from '../../schemas/validate.ts';

const { event, clientFrame, serverFrame, rowAnswer, errorBody } = createValidators();

const update = {
  v: 1,
  id: '0000000002A1B2C8.00000007',
  type: 'price_update',
  op: 'update',
  table: 'public.prices',
  key: { token_id: 'ethereum:0xc02a' },
  after: { token_id: 'ethereum:0xc02a', price: '3009.43' },
  before: { token_id: 'ethereum:0xc02a', price: '3009.42' },
  tx: { xid: 771, idx: 3, last: true },
  at: '2026-11-22T12:00:00.123456Z',
};
const { v, id, tx, at, table, key, after } = update;

describe('event schema: what an event of the log looks like', () => {
  const good: Readonly<Record<string, unknown>> = {
    'an update': update,
    'an insert into a table without a key': { v, id, type: 'row', op: 'insert', table, after, tx, at },
    'a delete that knows the key alone': { v, id, type: 'row', op: 'delete', table, key, before: key, tx, at },
    'a truncate': { v, id, type: 'row', op: 'truncate', table, tx, at },
    'a row that a snapshot read': { v, id, type: 'row', op: 'read', table, key, after, at },
    'columns that are not resent, too large, or JSON null': { ...update, unchanged: ['a'], omitted: ['b'], jsonNull: ['c', 'd'] },
    'a time to the second': { ...update, at: '2026-11-22T12:00:00Z' },
    'the largest xid': { ...update, tx: { xid: 4294967295, idx: 0 } },
    'a schema event': {
      v,
      id,
      type: 'schema',
      relation: table,
      columns: [{ name: 'price', type: 'numeric', key: false }],
      tx: { xid: 1, idx: 0 },
      at,
    },
    'a message': { v, id, type: 'message', prefix: 'outbox', content: '', encoding: 'utf8', at },
    'a message too large for the log': { v, id, type: 'message', prefix: 'outbox', omitted: ['content'], encoding: 'base64', tx, at },
    'a mark': { v, id, type: 'mark', mark: 'snapshot', data: { state: 'begin' }, at },
    'a tick': { v, id, type: 'tick', tx, at },
  };
  for (const [name, value] of Object.entries(good)) it(name, () => expect(event(value)).to.equal(undefined));
});

describe('event schema: what is none', () => {
  const without = (field: keyof typeof update): unknown => Object.fromEntries(Object.entries(update).filter(([name]) => name !== field));
  const bad: Readonly<Record<string, readonly [value: unknown, message: RegExp]>> = {
    'no object': ['x', /must be object/],
    null: [null, /must be object/],
    'another version': [{ ...update, v: 2 }, /v must be 1/],
    'an id in lower case': [{ ...update, id: id.toLowerCase() }, /id must match/],
    'no time': [without('at'), /required property 'at'/],
    'a time that is not UTC': [{ ...update, at: '2026-11-22T12:00:00+01:00' }, /at must match/],
    'a time with nanoseconds': [{ ...update, at: '2026-11-22T12:00:00.123456789Z' }, /at must match/],
    'a table without its schema': [{ ...update, table: 'prices' }, /table must match/],
    'an unknown op': [{ ...update, op: 'upsert' }, /op must be one of insert, update/],
    'an unknown field': [{ ...update, seq: 7 }, /must not have seq/],
    'an update without the new row': [without('after'), /./],
    'an insert with an old row': [{ ...update, op: 'insert' }, /./],
    'a delete with a new row': [{ ...update, op: 'delete' }, /./],
    'a truncate with a key': [{ v, id, type: 'row', op: 'truncate', table, key, tx, at }, /./],
    'a change without its transaction': [without('tx'), /./],
    'a read with a transaction': [{ v, id, type: 'row', op: 'read', table, key, after, tx, at }, /./],
    'null for what is absent': [{ ...update, before: null }, /before must be object/],
    'last: false': [{ ...update, tx: { xid: 1, idx: 0, last: false } }, /tx.last must be true/],
    'an xid over 32 bit': [{ ...update, tx: { xid: 4294967296, idx: 0 } }, /tx.xid must be <= 4294967295/],
    'a row with the type of another kind': [{ ...update, type: 'tick' }, /must not have/],
    'an empty list of columns': [{ ...update, omitted: [] }, /omitted must NOT have fewer than 1/],
    'a tick with more': [{ v, id, type: 'tick', tx, at, table }, /must not have table/],
    'a message without content': [{ v, id, type: 'message', prefix: 'x', encoding: 'utf8', at }, /./],
  };
  for (const [name, [value, message]] of Object.entries(bad)) it(name, () => expect(event(value)).to.match(message));
});

describe('frames: what clients may send', () => {
  const subscribe = { type: 'subscribe', id: 1, sub: 'a', channel: 'prices' };
  const good: readonly unknown[] = [
    { type: 'connect', auth: { apiKey: 'k' } },
    { type: 'connect', id: 'x', auth: { jwt: 'j' }, client: 'bot/1', later: true },
    subscribe,
    { ...subscribe, filter: { chains: ['base'] }, snapshot: true, mode: 'latest', from: 'now' },
    { ...subscribe, from: { seq: 1e12 } },
    { ...subscribe, from: { after: 0 } },
    { ...subscribe, from: { time: '2026-11-22T12:00:00.123Z' } },
    { ...subscribe, from: { last: 10 } },
    { ...subscribe, from: { token: 'AAAA', after: 12 } },
    { type: 'unsubscribe', id: 2, sub: 'a' },
    { type: 'auth', id: 3, auth: { ticket: 't' } },
    { type: 'ping', id: 4 },
  ];
  for (const frame of good) it(JSON.stringify(frame), () => expect(clientFrame(frame)).to.equal(undefined));

  const bad: readonly (readonly [unknown, RegExp])[] = [
    [[], /must be an object/],
    [null, /must be an object/],
    [{}, /type must be a text/],
    [{ type: 'nope' }, /type is not one of connect, subscribe/],
    [{ type: 'constructor' }, /type is not one of/],
    [{ type: 'event', seq: 1, channel: 'prices', event: update }, /type is not one of/],
    [{ type: 'connect' }, /required property 'auth'/],
    [{ type: 'connect', auth: {} }, /auth has none of the forms/],
    [{ type: 'subscribe', id: 1, sub: 'a' }, /required property 'channel'/],
    [{ ...subscribe, sub: '' }, /sub must NOT have fewer than 1/],
    [{ ...subscribe, id: {} }, /id has none of the forms/],
    [{ ...subscribe, mode: 'some' }, /mode must be one of all, latest/],
    [{ ...subscribe, from: 'then' }, /from has none of the forms/],
    [{ ...subscribe, from: { seq: 1.5 } }, /from has none of the forms/],
    [{ ...subscribe, from: { seq: -1 } }, /from has none of the forms/],
    [{ ...subscribe, from: { time: 'yesterday' } }, /from has none of the forms/],
  ];
  for (const [frame, message] of bad) it(`not ${JSON.stringify(frame)}`, () => expect(clientFrame(frame)).to.match(message));
});

describe('frames: what the server sends', () => {
  const subscribed = { type: 'subscribed', id: 1, sub: 'a', channel: 'prices', epoch: 'e', oldest: 1, head: 9, start: 10, token: 't' };
  const good: readonly unknown[] = [
    {
      type: 'connected',
      connection: 'c',
      epoch: 'e',
      head: 0,
      scopes: ['read'],
      limits: { connections: 100 },
      pingMs: 25_000,
      reconnect: { minMs: 500, maxMs: 20_000 },
    },
    subscribed,
    { type: 'snapshot', sub: 'a', asOf: 9, items: [{ seq: 3, event: update }], more: false },
    { type: 'event', seq: 10, channel: 'prices', event: update },
    { type: 'event', seq: 10, channel: 'prices', event: update, sub: 'a' },
    { type: 'caught_up', sub: 'a', seq: 10, token: 't' },
    { type: 'cursor', seq: 10, token: 't' },
    { type: 'unsubscribed', sub: 'a', reason: 'forbidden' },
    { type: 'pong', id: 'x' },
    { type: 'auth_expiring', inMs: 60_000 },
    { type: 'draining', inMs: 10_000 },
    { type: 'error', id: 1, sub: 'a', code: 'resume_expired', message: 'gone', oldest: 5, head: 9 },
  ];
  for (const frame of good) it(JSON.stringify(frame).slice(0, 90), () => expect(serverFrame(frame)).to.equal(undefined));

  it('refuses an event frame whose event is none, and says where', () => {
    expect(serverFrame({ type: 'event', seq: 10, channel: 'prices', event: { ...update, v: 2 } })).to.match(/^event /);
    expect(serverFrame({ ...subscribed, token: undefined })).to.match(/token/);
    expect(serverFrame({ type: 'error', code: 'Not Found', message: 'x' })).to.match(/code must match/);
    expect(serverFrame({ type: 'subscribe', id: 1, sub: 'a', channel: 'prices' })).to.match(/type is not one of connected/);
  });
});

describe('bodies of the HTTP API', () => {
  it('rows', () => {
    expect(rowAnswer({ row: { price: '1.10' }, seq: 7, asOf: 9, source: 'cache' })).to.equal(undefined);
    expect(rowAnswer({ row: {}, asOf: 0, source: 'database' })).to.equal(undefined);
    expect(rowAnswer({ row: {}, asOf: 0, source: 'guess' })).to.match(/source must be one of cache, database/);
    expect(rowAnswer({ asOf: 0, source: 'cache' })).to.match(/'row'/);
  });

  it('errors', () => {
    expect(errorBody({ error: { code: 'not_found', message: 'no such row' } })).to.equal(undefined);
    expect(errorBody({ error: { code: 'bad_filter', message: 'x', field: 'chains' } })).to.equal(undefined);
    expect(errorBody({ error: 'x' })).to.match(/error must be object/);
    expect(errorBody({ error: { code: 'x', message: 'x', stack: 'secret' } })).to.match(/error must not have stack/);
  });
});

import { expect } from 'chai';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { tableToken } from '../../schemas/subjects.ts';
import { filledLog } from '../pipeline/replay/support/replay-log.ts';
import type { FreshLog } from '../pipeline/log/support/fresh-log.ts';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { freshStreamName, testServers } from '../support/servers.ts';
import { callCli } from './support/call-cli.ts';

const odd = { schema: 'odd.sch', table: 'Ta ble*' };

/** What tells a table's columns. */
function columnsOf(schema: string, table: string, columns: readonly (readonly [name: string, type: string, key: boolean])[]): NewEvent {
  const event = { v: 1, type: 'schema', columns: columns.map(([name, type, key]) => ({ name, type, key })), at: '2026-11-22T00:00:00Z' };
  return { subject: `ev._schema.${tableToken(schema, table)}`, data: Buffer.from(JSON.stringify(event)) };
}

const events: readonly NewEvent[] = [
  columnsOf(odd.schema, odd.table, [['id', 'integer', true]]),
  rowEvent(2, 'insert', { ...odd, key: { id: 1 }, after: { id: 1 } }),
  rowEvent(3, 'insert', { table: 'told', key: { id: 1 }, after: { id: 1 } }),
  // In the table the columns of its key stand in another order than in the key.
  columnsOf('public', 'pair', [
    ['a', 'integer', true],
    ['b', 'text', true],
  ]),
  rowEvent(5, 'insert', { table: 'pair', key: { b: 'x:y', a: 1 }, after: { a: 1, b: 'x:y' } }),
  columnsOf('public', 'keyless', [['id', 'integer', false]]),
  rowEvent(7, 'insert', { table: 'keyless', after: { id: 1 } }),
  columnsOf('public', 'word', [['id', 'text', true]]),
  rowEvent(9, 'insert', { table: 'word', key: { id: 'base:1' }, after: { id: 'base:1' } }),
  // With an older key, whose columns the log no longer tells.
  rowEvent(10, 'insert', { table: 'changed', key: { a: 1, b: 2, c: 3 }, after: { a: 1, b: 2, c: 3 } }),
  columnsOf('public', 'changed', [['a', 'integer', true]]),
  rowEvent(12, 'insert', { table: 'changed', key: { a: 1 }, after: { a: 1, b: 2, c: 3 } }),
  // Its first key column is excluded by the catalogue, and a truncate names no row.
  columnsOf('public', 'excluded', [['id', 'integer', true]]),
  rowEvent(14, 'insert', { table: 'excluded', key: { tenant: 'a', id: 1 }, after: { id: 1 } }),
  rowEvent(15, 'truncate', { table: 'excluded' }),
];

describe('tables and keys by name', function () {
  this.timeout(60_000);
  let connection: NatsConnection;
  let fresh: FreshLog;
  let env: Record<string, string>;

  before(async () => {
    const { natsUrl } = await testServers();
    connection = await connectNats(natsUrl, 'test', silentLogger());
    fresh = await filledLog(connection, events.length, (n) => events[n - 1]!);
    env = { NATS_URL: natsUrl, HEADWATER_STREAM: fresh.subject, HEADWATER_SUBJECT: fresh.subject };
  });
  after(async () => {
    fresh.log.close();
    await fresh.remove();
    await connection.close();
  });

  const replayed = async (...args: string[]): Promise<unknown> => {
    const { code, stdout, stderr } = await callCli(['replay', '--from', 'oldest', '--dry-run', '--json', ...args], env);
    return code === 0 ? (JSON.parse(stdout) as { events: number }).events : { code, stderr };
  };
  const team = (): string => freshStreamName().toLowerCase();
  const added = async (name: string, ...args: string[]): Promise<{ readonly subjects: readonly string[]; readonly stderr: string }> => {
    const { code, stdout, stderr } = await callCli(['consumers', 'add', name, '--json', ...args], env);
    expect(code, stderr).to.equal(0);
    return { subjects: (JSON.parse(stdout) as { subjects: string[] }).subjects.slice(0, -2), stderr };
  };

  it('a schema with a dot in its name is found as it is told, by every verb', async () => {
    const name = `${odd.schema}.${odd.table}`;
    expect(await replayed('--tables', name)).to.equal(1);
    expect(await replayed('--tables', name, '--where', 'id = 1')).to.equal(1);
    const tail = await callCli(['tail', name, '--from', '1', '-n', '1', '--json'], env, { signal: AbortSignal.timeout(10_000) });
    expect(tail.stdout).to.match(/^\{"seq":2,/);
    const { subjects, stderr } = await added(team(), '--tables', `told,${name}`);
    expect(subjects).to.deep.equal([`${fresh.subject}.public.told.*`, `${fresh.subject}.odd%2Esch.Ta%20ble%2A.*`]);
    expect(stderr).to.not.include('holds no events');
  });

  it('a table to come is taken wherever its dot belongs; that it may be a typing error is said', async () => {
    const name = team();
    const { subjects, stderr } = await added(name, '--tables', 'public.par,new.sch.t', '--ops', 'insert');
    expect(subjects).to.deep.equal(['public.par', 'new.sch%2Et', 'new%2Esch.t'].map((token) => `${fresh.subject}.${token}.insert`));
    expect(stderr)
      .to.include(`The log holds no events of public.par yet; did you mean public.pair? ${name} gets them when there are any.\n`)
      .and.include(`The log holds no events of new.sch.t yet. ${name}`);
    const filters = [`${fresh.subject}.public.told.insert`, `${fresh.subject}.public.told.delete`];
    const given = await added(team(), '--subjects', filters.join(','));
    expect(given.subjects).to.deep.equal(filters);
    expect(given.stderr.match(/holds no events on \S+/g)).to.deep.equal([`holds no events on ${filters[1]}`]);
    let said = '';
    const ending = new AbortController();
    const waiting = callCli(['tail', 'par'], env, { signal: ending.signal, onError: (text) => (said += text) });
    await until(() => said.endsWith('\n'), 10_000);
    ending.abort();
    await waiting;
    expect(said).to.equal('The log holds no events of public.par yet; did you mean public.pair?\n');
  });

  it('what cannot be a name, or a time to wait for, is told with 2', async () => {
    for (const [args, message] of [
      [
        ['consumers', 'add', 'x', '--tables', 'told,a.', '--ack-wait', '0'],
        /--tables must be names of tables[^]*--ack-wait must be .* from 1ms/,
      ],
      [['consumers', 'add', 'x', '--ack-wait', '999999999d'], /--ack-wait must be .* to 365d/],
      [['consumers', 'add', 'x', '--since', '999999999d'], /--since must be a time/],
      [['tail', '.told'], /'\.told' cannot be a table's name/],
      [['replay', '--from', '1', '--dry-run', '--key', '%zz'], /--key must be percent-encoded.* \(it is '%zz'\)/],
    ] as const) {
      const { code, stderr } = await callCli(args, env);
      expect([code, args], stderr).to.deep.equal([2, args]);
      expect(stderr).to.match(message);
    }
  });

  it('a key that no chosen table can have is told with the columns that it needs, in their order', async () => {
    const refused = async (key: string, tables: string): Promise<string> => {
      const answer = (await replayed('--tables', tables, '--key', key)) as { readonly code: number; readonly stderr: string };
      expect(answer, `${tables} ${key}`).to.have.property('code', 2);
      return answer.stderr;
    };
    expect(await refused('a', 'pair')).to.include(`--key 'a' can be no row's: public.pair has 2 key columns (b, a)`);
    expect(await refused('5:6', 'odd.sch.Ta ble*')).to.include('odd.sch.Ta ble* has 1 key column (id)');
    expect(await refused('1', 'keyless,pair'))
      .to.include('public.keyless has no primary key; public.pair has 2 key columns')
      .and.include('next: give a value for each');
    expect(await refused('1', 'keyless')).to.include('next: leave --key out');
    // What is encoded in part cannot stand there as it is.
    expect(await refused('base%3A1:2', 'word')).to.include('public.word has 1 key column (id)');
    expect(await replayed('--tables', 'pair', '--key', 'x%3Ay:1')).to.equal(1);
    expect(await replayed('--tables', 'pair,keyless,word', '--key', 'base:1')).to.equal(1);
    expect(await replayed('--tables', 'word', '--key', 'base%3A1')).to.equal(1);
    // Nobody knows of these how many columns their key has had.
    expect(await replayed('--tables', 'told', '--key', '1:2')).to.equal(0);
    expect(await replayed('--tables', 'changed', '--key', '1:2:3')).to.equal(1);
    expect(await replayed('--tables', 'excluded', '--key', 'a:1'))
      .to.be.a('number')
      .and.be.at.least(1);
  });
});

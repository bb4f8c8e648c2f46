import { expect } from 'chai';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { jetstreamManager } from '../../pipeline/clients/nats.ts';
import { freshStreamName, testServers } from '../support/servers.ts';
import { callCli } from './support/call-cli.ts';
import { runCli } from './support/run-cli.ts';
import { startTeamServer, type TeamServer } from '../pipeline/consumers/team-server.ts';

describe('headwater consumers', function () {
  this.timeout(90_000);
  let server: TeamServer;

  before(async () => {
    server = await startTeamServer();
    await server.append(10);
    await server.append(10, 'odd name');
  });
  after(() => server.stop());

  const run = (...args: string[]): ReturnType<typeof callCli> => callCli(['consumers', ...args, '--data', server.data]);

  it('tells all faults at once, with a way on', async () => {
    const { code, stderr } = await run('add', 'Gateway', '--tables', 'a', '--subjects', 'other.>', '--from', '0', '--new');
    expect(code).to.equal(2);
    expect(stderr).to.match(/--from must be a sequence number/);
    const more = await run('add', 'gateway', '--tables', 'a', '--subjects', 'other.>,ev.a b,ev.>.x', '--from', '1', '--new');
    expect(more.code).to.equal(2);
    for (const part of ["'gateway' cannot be", '--subjects, or --tables', 'one of --from', "'other.>' is not", "'ev.a b'", "'ev.>.x'"])
      expect(more.stderr).to.include(part);
    expect((await run('add', 'late', '--from', '1000')).stderr).to.include('the log ends at sequence 20');
    expect((await run('remove', 'nobody', '--yes')).code).to.equal(2);
    expect((await run('remove', 'nobody')).code).to.equal(3);
    expect(await (await jetstreamManager(server.operator)).consumers.list('EVENTS').next()).to.deep.equal([]);
  });

  it('makes the consumer that was asked for, and prints what the team needs, alone on stdout', async () => {
    const { code, stdout, stderr } = await run('add', 'billing', '--tables', 'prices,public.odd name', '--ops', 'insert', '--from', '4');
    expect(code, stderr).to.equal(0);
    expect(stdout).to.match(
      /^NATS_URL=nats:\/\/billing:hw[0-9a-f]{32}@127\.0\.0\.1:\d+\nNATS_STREAM=EVENTS\nNATS_CONSUMER=billing\nNATS_INBOX_PREFIX=_INBOX_billing\n$/,
    );
    const { config } = await (await jetstreamManager(server.operator)).consumers.info('EVENTS', 'billing');
    expect(config).to.deep.include({ durable_name: 'billing', opt_start_seq: 4, ack_policy: 'explicit' });
    expect(config.filter_subjects).to.deep.equal([
      'ev.public.prices.insert',
      'ev.public.odd%20name.insert',
      'ev._mark.snapshot',
      'ev._mark.gap',
    ]);
    const files = ['teams.json', 'teams.conf', 'nats.conf'].map((name) => join(server.data, 'nats', name));
    for (const file of files.slice(0, 2)) expect(statSync(file).mode & 0o77, file).to.equal(0);
    const again = await run('add', 'billing');
    expect(again.code).to.equal(3);
    expect(again.stderr).to.include('consumers remove billing');
    // The password of the one that is there has not been touched.
    expect(readFileSync(files[0]!, 'utf8')).to.include(/billing:(\w+)@/.exec(stdout)![1]);
  });

  it('begins where it is told, without an overlap of filters', async () => {
    const manager = await jetstreamManager(server.operator);
    const begins = async (name: string, ...args: string[]): Promise<unknown> => {
      expect((await run('add', name, ...args)).code).to.equal(0);
      const { config } = await manager.consumers.info('EVENTS', name);
      return [config.opt_start_seq, config.filter_subjects ?? config.filter_subject];
    };
    expect(await begins('whole')).to.deep.equal([1, ['ev.>']]);
    expect(await begins('next', '--new', '--subjects', 'ev._mark.>,ev.*.prices.insert')).to.deep.equal([
      21,
      ['ev._mark.>', 'ev.*.prices.insert'],
    ]);
    expect(await begins('since', '--since', '2026-11-22T00:00:00.005Z')).to.deep.equal([5, ['ev.>']]);
  });

  it('lists who is how far, and forgets who is removed', async () => {
    const whole = await (await jetstreamManager(server.operator)).jetstream().consumers.get('EVENTS', 'whole');
    for await (const message of await whole.fetch({ max_messages: 3, expires: 2_000 })) if (message.seq < 3) await message.ackAck();
    const teams = JSON.parse((await runCli(['consumers', 'list', '--json', '--data', server.data])).stdout) as { name: string }[];
    expect(teams.map(({ name }) => name)).to.deep.equal(['billing', 'next', 'since', 'whole']);
    expect(teams.at(-1)).to.deep.include({ acknowledged: 2, delivered: 3, pending: 17, unacknowledged: 1, trimmed: false });
    const text = (await run('list')).stdout;
    expect(text)
      .to.match(/^TEAM/)
      .and.match(/^next .* has everything$/m);
    expect((await run('remove', 'whole', '--yes')).stdout).to.equal('Removed: whole.\n');
    expect((await run('list', '--json')).stdout).to.not.include('whole');
    const users = readFileSync(join(server.data, 'nats', 'teams.conf'), 'utf8');
    expect(users).to.include('"billing"').and.not.include('whole');
  });

  it('added at the same moment all get in', async () => {
    const names = Array.from({ length: 6 }, (_, n) => `many-${n}`);
    for (const { code, stderr } of await Promise.all(names.map((name) => run('add', name, '--new')))) expect(code, stderr).to.equal(0);
    const users = readFileSync(join(server.data, 'nats', 'teams.conf'), 'utf8');
    for (const name of names) expect(users).to.include(`"${name}"`);
  });

  it('leaves consumers alone that are not a team’s', async () => {
    const manager = await jetstreamManager(server.operator);
    await manager.consumers.add('EVENTS', { durable_name: 'foreign', ack_policy: 'explicit' });
    expect((await run('add', 'foreign')).code).to.equal(3);
    expect((await run('remove', 'foreign', '--yes')).code).to.equal(3);
    expect((await manager.consumers.info('EVENTS', 'foreign')).name).to.equal('foreign');
  });

  it('says to whoever comes with a team’s URL that it is one', async () => {
    const team = await server.add('sales', '--new');
    for (const args of [
      ['consumers', 'list'],
      ['tail', '--from', '1', '-n', '1'],
      ['replay', '--from', 'oldest', '--dry-run'],
    ]) {
      const { code, stderr } = await callCli(args, { NATS_URL: team.NATS_URL });
      expect(code, stderr).to.equal(3);
      expect(stderr)
        .to.include(`the user 'sales' of nats://sales:***@`)
        .and.match(/next: a team's user .* the operator's URL in NATS_URL/);
    }
  });

  it('prints the configuration to add where the server is not ours', async () => {
    const [{ nats }, stream, subject] = [await testServers(), freshStreamName(), freshStreamName()];
    const manager = await jetstreamManager(server.operator);
    await manager.streams.add({ name: stream, subjects: [`${subject}.>`] });
    // The same server, by a user and from a directory that say nothing of its files.
    const env = { NATS_URL: server.operatorUrl, HEADWATER_STREAM: stream, HEADWATER_SUBJECT: subject };
    expect(nats.operator).to.not.equal(server.operatorUrl);
    const { code, stdout, stderr } = await callCli(['consumers', 'add', 'far'], env);
    expect(code, stderr).to.equal(0);
    expect(stdout).to.match(/^NATS_URL=nats:\/\/far:/);
    expect(stderr)
      .to.include(`"$JS.API.CONSUMER.MSG.NEXT.${stream}.far"`)
      .and.include('allow: ["_INBOX_far.>"]')
      .and.include('--signal reload');
    const { configuration } = JSON.parse((await callCli(['consumers', 'add', 'json', '--json'], env)).stdout) as { configuration: string };
    expect(configuration).to.include('user: "json"');
    await callCli(['consumers', 'remove', 'far', '--yes'], env);
    await manager.streams.delete(stream);
  });

  it('says what is missing when nothing answers, or there is no log', async () => {
    const away = await callCli(['consumers', 'list'], { NATS_URL: 'nats://me:hunter2@127.0.0.1:1' });
    expect(away.code).to.equal(1);
    expect(away.stderr)
      .to.match(/NATS at nats:\/\/me:\*\*\*@127.0.0.1:1 does not answer/)
      .and.match(/NATS_URL/);
    const empty = await callCli(['consumers', 'list'], { NATS_URL: server.operatorUrl, HEADWATER_STREAM: freshStreamName() });
    expect(empty.code).to.equal(1);
    expect(empty.stderr).to.include('start capture');
  });
});

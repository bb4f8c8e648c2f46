import { expect } from 'chai';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import { writeRunFile } from '../../cli/run-file.ts';
import { startRest, type Rest } from '../processors/alerts/routes/support/rest.ts';
import { callCli } from './support/call-cli.ts';
import { runCli } from './support/run-cli.ts';

const secret = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
const other = `whsec_${Buffer.alloc(32, 2).toString('base64')}`;

const first = `
rules:
  - name: ETH above 3000
    table: public.prices
    match: {chain: [ethereum]}
    when: price > 3000.10 AND NOT symbol LIKE "W%"
    for: 5m
    clear: price < 2990
    channels:
      - {type: webhook, url: 'https://example.com/hook', secret: '\${HOOK_SECRET}'}
      - {type: email, to: ann@example.com}
  - name: precise
    table: public.prices
    when: {field: price, op: gte, value: 12345678901234567890.123456789}
    severity: critical
  - name: silent
    table: public.prices
    when: ABSENT FOR 10m
    enabled: false
`;

describe('headwater rules', function () {
  this.timeout(120_000);
  let rest: Rest;
  let folder: string;
  let file: string;

  before(async () => {
    rest = await startRest();
    folder = mkdtempSync(join(tmpdir(), 'headwater-rules-'));
    file = join(folder, 'rules.yaml');
  });

  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    await rest.close();
  });

  beforeEach(() => rest.sql('DELETE FROM headwater.alert_rules'));

  async function rules(args: readonly string[], env: Record<string, string> = {}): ReturnType<typeof callCli> {
    return callCli(['rules', ...args], { HEADWATER_GATEWAY: rest.url, HEADWATER_KEY: 'ann', HOOK_SECRET: secret, ...env });
  }

  async function apply(text: string, args: readonly string[] = [], env: Record<string, string> = {}): ReturnType<typeof callCli> {
    writeFileSync(file, text);
    return rules(['apply', '-f', file, ...args], env);
  }

  async function stored(): Promise<Record<string, unknown>[]> {
    return rest.sql(
      'SELECT name, user_id, revision, match, condition, for_seconds, severity, channels, enabled FROM headwater.alert_rules ORDER BY created_at, id',
    );
  }

  it('apply makes the stored rules those of the file; a second time there is nothing to do', async () => {
    const done = await apply(first);
    expect({ code: done.code, stdout: done.stdout, stderr: done.stderr }).to.deep.equal({
      code: 0,
      stdout: '+ ETH above 3000\n+ precise\n+ silent\n3 created, 0 changed, 0 removed, 0 unchanged\n',
      stderr: '',
    });
    const [eth, precise, silent] = await stored();
    expect(eth).to.deep.include({ name: 'ETH above 3000', user_id: 'ann', match: { chain: ['ethereum'] }, for_seconds: 300 });
    expect(eth!['condition']).to.deep.equal({
      and: [{ field: 'price', op: 'gt', value: 3000.1 }, { not: { field: 'symbol', op: 'like', value: 'W%' } }],
    });
    expect(eth!['channels']).to.deep.equal([
      { type: 'webhook', url: 'https://example.com/hook', secret },
      { type: 'email', to: 'ann@example.com' },
    ]);
    // More digits than a double has, also where YAML has a number.
    expect(precise!['condition']).to.deep.equal({ field: 'price', op: 'gte', value: '12345678901234567890.123456789' });
    expect(silent).to.include({ enabled: false });

    const again = await apply(first);
    expect(again.stdout).to.equal('0 created, 0 changed, 0 removed, 3 unchanged\n');
    expect((await stored()).map(({ revision }) => revision)).to.deep.equal([1, 1, 1]);
  });

  it('says what would change, and changes that: + ~ -', async () => {
    await apply(first);
    const second = first
      .replace('for: 5m', 'for: 600s')
      .replace('3000.10', '3100')
      .replace(/ {2}- name: silent[\s\S]*$/, '  - name: new\n    table: public.prices\n    when: price CHANGED\n');
    const before = await stored();
    const dry = await apply(second, ['--dry-run', '--prune']);
    expect(dry.code, dry.stderr).to.equal(0);
    expect(dry.stdout).to.equal(
      [
        '+ new',
        '~ ETH above 3000',
        '    when: price > 3000.1 AND symbol NOT LIKE "W%" → price > 3100 AND symbol NOT LIKE "W%"',
        '    for: 5m → 10m',
        '- silent',
        '1 to create, 1 to change, 1 to remove, 1 unchanged',
        '',
      ].join('\n'),
    );
    expect(await stored()).to.deep.equal(before);

    const kept = await apply(second);
    expect(kept.stdout).to.include('1 created, 1 changed, 0 removed, 1 unchanged');
    expect(kept.stderr).to.equal('1 rule is in no file and stays: silent. --prune removes them.\n');
    const pruned = await apply(second, ['--prune', '--json']);
    const { removed, ...rest_ } = JSON.parse(pruned.stdout) as Record<string, unknown> & { removed: { name: string }[] };
    expect(rest_).to.deep.equal({ dryRun: false, created: [], changed: [], unchanged: 3 - 1 + 1, kept: [] });
    expect(removed.map(({ name }) => name)).to.deep.equal(['silent']);
    expect((await stored()).map(({ name, revision }) => [name, revision])).to.deep.equal([
      ['ETH above 3000', 2],
      ['precise', 1],
      ['new', 1],
    ]);
  });

  it('takes what rules have in common from an anchor', async () => {
    const done = await apply(
      'rules:\n  - &base {name: a, table: public.prices, when: price > 1, severity: critical}\n  - {<<: *base, name: b, when: price > 2}\n',
    );
    expect(done.code, done.stderr).to.equal(0);
    expect((await stored()).map(({ name, severity }) => [name, severity])).to.deep.equal([
      ['a', 'critical'],
      ['b', 'critical'],
    ]);
  });

  it('tells every fault of every rule with its line, and changes nothing', async () => {
    const text = `rules:
  - name: one
    table: public.prices
    when: price >
    severty: info
  - name: two
    table: public.prices
    when:
      and:
        - {field: price, op: gt, value: abc}
    for: 5 minutes
    channels:
      - {type: webhook, url: 'https://example.com', secret: '\${NOT_SET}'}
  - name: three
    table: public.prices
    when: pricd > 1
`;
    const offline = await apply(text);
    expect(offline.code).to.equal(2);
    const faults = offline.stderr.split('\n').filter((line) => line.startsWith('  - '));
    expect(faults).to.deep.equal([
      `  - ${file}:4: rule "one": when at line 1, column 8: the text ends, but expected a value: "text", a number, TRUE or FALSE`,
      `  - ${file}:5: rule "one": severty is no member of a rule; did you mean severity?`,
      `  - ${file}:11: rule "two": for is "5 minutes", and must be a duration like 30s, 5m, 1h or 2d, up to 366d`,
      `  - ${file}:13: rule "two": channels[0].secret names \${NOT_SET}, which is not set in the environment`,
    ]);

    // What only the gateway knows: columns and tables. Nothing is written, though the first rule is good.
    const online = await apply(`rules:
  - {name: good, table: public.prices, when: price > 1}
  - name: bad column
    table: public.prices
    when: pricd > 1
    groupBy: [chian]
  - name: bad table
    table: public.pricez
    when: price > 1
  - name: bad value
    table: public.prices
    when:
      or:
        - {field: chain, op: eq, value: 5}
  - name: bad value
    table: public.prices
    when: price > 1
`);
    expect(online.code).to.equal(2);
    const told = online.stderr.split('\n').filter((line) => line.startsWith('  - '));
    expect(told).to.deep.equal([
      `  - ${file}:5: rule "bad column": when at line 1, column 1: the column is "pricd", which is no column of the table; did you mean price?`,
      `  - ${file}:6: rule "bad column": groupBy[0] is "chian", which is no column of the table; did you mean chain?`,
      `  - ${file}:8: rule "bad table": table is public.pricez, and there is no such table; did you mean public.prices?`,
      `  - ${file}:14: rule "bad value": when.or[0].value is 5, and must be text: "5" (chain is text)`,
      `  - ${file}:15: rule "bad value": name is the name of a rule further up, too: rules are known by their names`,
    ]);
    expect(online.stderr).to.include('nothing has been changed');
    expect(await stored()).to.deep.equal([]);
  });

  it('refuses what is no file of rules, and a name that two stored rules have', async () => {
    for (const [text, message] of [
      ['', 'the file must have a list `rules:`'],
      ['rules: 5', 'the file must have a list `rules:`'],
      ['rules: [', ':1: '],
      ['rules: []\nrule: 1', ':2: rule is not known here; did you mean rules?'],
    ] as const) {
      const ran = await apply(text, ['--prune']);
      expect(ran.code, text).to.equal(2);
      expect(ran.stderr).to.include(message);
    }
    const missing = await rules(['apply', '-f', join(folder, 'nothing.yaml')]);
    expect(missing).to.include({ code: 2 });
    expect((await rules(['apply'])).stderr).to.include('name one with -f');

    const rule = { name: 'twice', table: 'public.prices', when: { field: 'price', op: 'gt', value: 1 } };
    for (const _ of [1, 2]) expect((await rest.call('POST', '/v2/alert-rules', rule)).status).to.equal(201);
    const twice = await apply('rules: [{name: twice, table: public.prices, when: price > 2}]');
    expect(twice.code).to.equal(2);
    expect(twice.stderr).to.match(/name is the name of 2 stored rules: delete or rename all but one of [\w-]+, [\w-]+/);
  });

  it('shows a secret that the gateway makes once, keeps it, and replaces it by the one of the file', async () => {
    const webhook = (more = ''): string =>
      `rules: [{name: hook, table: public.prices, when: price > 1, channels: [{type: webhook, url: 'https://example.com/h'${more}}]}]`;
    const made = await apply(webhook());
    expect(made.stdout).to.match(/sends to https:\/\/example\.com\/h, shown this once: whsec_[\w+/=]{44}\n/);
    const shown = /whsec_[\w+/=]+/.exec(made.stdout)![0];
    expect((await stored())[0]!['channels']).to.deep.include({ type: 'webhook', url: 'https://example.com/h', secret: shown });
    expect((await apply(webhook())).stdout).to.equal('0 created, 0 changed, 0 removed, 1 unchanged\n');

    const replaced = await apply(webhook(`, secret: '${other}'`));
    expect(replaced.stdout).to.include('1 changed').and.not.include(other);
    expect((await stored())[0]!['channels']).to.have.nested.property('[0].secret', other);
    // Another one with the same end, which is all that a client can see of it.
    const alike = `whsec_${Buffer.concat([Buffer.alloc(16, 9), Buffer.alloc(16, 2)]).toString('base64')}`;
    expect(alike.slice(-4)).to.equal(other.slice(-4));
    expect((await apply(webhook(`, secret: '${alike}'`))).stdout).to.equal('0 created, 1 changed, 0 removed, 0 unchanged\n');
    expect((await stored())[0]!['channels']).to.have.nested.property('[0].secret', alike);
  });

  it('list shows the rules of the key, and export gives a file that changes nothing', async () => {
    expect((await rules(['list'])).stdout).to.include('There are no rules');
    await apply(first);
    await rest.call('POST', '/v2/alert-rules', { name: 'of bob', table: 'public.prices', when: 'price > 1' }, { as: 'bob' });
    const listed = await rules(['list']);
    expect(listed.stdout)
      .to.match(/NAME +TABLE +WHEN/)
      .and.match(/silent +public\.prices +ABSENT FOR 10m +info +off +1/);
    expect(listed.stdout).to.not.include('of bob');
    expect(JSON.parse((await rules(['list', '--json'])).stdout)).to.have.length(3);

    const exported = await rules(['export']);
    expect(parse(exported.stdout)).to.deep.equal({
      rules: [
        {
          name: 'ETH above 3000',
          table: 'public.prices',
          match: { chain: ['ethereum'] },
          when: 'price > 3000.1 AND symbol NOT LIKE "W%"',
          for: '5m',
          clear: 'price < 2990',
          severity: 'info',
          channels: [
            { type: 'webhook', url: 'https://example.com/hook' },
            { type: 'email', to: 'ann@example.com' },
          ],
        },
        { name: 'precise', table: 'public.prices', when: 'price >= 12345678901234567890.123456789', severity: 'critical' },
        { name: 'silent', table: 'public.prices', when: 'ABSENT FOR 10m', severity: 'info', enabled: false },
      ],
    });
    expect((await apply(exported.stdout, ['--prune'])).stdout).to.equal('0 created, 0 changed, 0 removed, 3 unchanged\n');
    expect((await apply((await rules(['export', '--json'])).stdout)).stdout).to.equal('0 created, 0 changed, 0 removed, 3 unchanged\n');
  });

  it('takes the gateway and its key from run.json, but sends that key nowhere else', async () => {
    const run = { gateway: rest.url, databaseUrl: 'x', natsUrl: 'x', redisUrl: 'x', key: 'ann' };
    await writeRunFile(folder, run);
    const empty = { HEADWATER_GATEWAY: '', HEADWATER_KEY: '' };
    expect(await runCli(['rules', 'list', '--data', folder], empty)).to.include({ code: 0, stderr: '' });
    const elsewhere = await rules(['list', '--data', folder, '--gateway', 'http://127.0.0.1:1'], empty);
    expect(elsewhere).to.include({ code: 2 });
    expect(elsewhere.stderr).to.include('no key is given for the gateway at http://127.0.0.1:1');
    expect((await rules(['list'], empty)).stderr).to.include('nothing is running');
  });

  it('says why a gateway refuses, or does not answer', async () => {
    const wrong = await rules(['list'], { HEADWATER_KEY: 'nobody' });
    expect(wrong.code).to.equal(2);
    expect(wrong.stderr).to.include('the gateway refuses the key').and.not.include('nobody');
    const guest = await rules(['list', '--key', 'guest']);
    expect(guest.code).to.equal(2);
    expect(guest.stderr).to.include('scope alerts');
    const gone = await rules(['list'], { HEADWATER_GATEWAY: 'http://127.0.0.1:1' });
    expect(gone.code).to.equal(1);
    expect(gone.stderr).to.include('the gateway at http://127.0.0.1:1 does not answer').and.include('--gateway');
    const user = await rules(['list'], { HEADWATER_GATEWAY: 'http://user:hunter2@127.0.0.1:1' });
    expect(user.code).to.equal(2);
    expect(user.stderr).to.include('a user or a password in it').and.not.include('hunter2');
  });
});

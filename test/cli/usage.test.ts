import { expect } from 'chai';
import type { Command } from 'commander';
import type { Cli } from '../../cli/cli.ts';
import type { Output } from '../../cli/output.ts';
import { createProgram } from '../../cli/program.ts';
import { callCli } from './support/call-cli.ts';
import { runCli } from './support/run-cli.ts';

function capturing(): { cli: Cli; written: string[] } {
  const written: string[] = [];
  const colors = new Proxy({}, { get: () => String }) as Output['colors'];
  const write = async (text: string): Promise<void> => void written.push(text);
  const out: Output = { colors, terminal: false, columns: undefined, write, line: (text = '') => write(`${text}\n`) };
  return { cli: { env: {}, out, err: out, ask: undefined, signal: new AbortController().signal }, written };
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

describe('command line: usage', () => {
  it('every verb has help with an example of itself', () => {
    const { cli, written } = capturing();
    const commands = everyCommand(createProgram(cli, '0'));
    expect(commands.length).to.be.greaterThan(14);
    for (const command of commands) {
      written.length = 0;
      command.outputHelp();
      const path = command.parent?.parent ? `${command.parent.name()} ${command.name()}` : command.parent ? command.name() : '';
      expect(written.join(''), path)
        .to.include('Usage: headwater')
        .and.match(new RegExp(`Examples:\n {2}headwater ${path}`));
    }
  });

  it('--help is on stdout and exits 0, no verb at all is help on stderr and exits 2', async () => {
    const [asked, bare] = await Promise.all([runCli(['tail', '--help']), runCli([])]);
    expect(asked).to.include({ code: 0, stderr: '' });
    expect(asked.stdout).to.match(/--from <seq>/);
    expect(bare).to.include({ code: 2, stdout: '' });
    expect(bare.stderr).to.match(/Usage: headwater/);
  });

  it('reports all faults at once, those of the environment too, and exits 2', async () => {
    const { code, stdout, stderr } = await callCli(['tail', '--from', '0', '-n', 'x', '--jsno', '--tick'], {
      HEADWATER_PROT: '1',
      HEADWATER_DRAIN: 'soon',
    });
    expect({ code, stdout }).to.deep.equal({ code: 2, stdout: '' });
    expect(stderr).to.include('6 errors');
    expect(stderr)
      .to.match(/--from must be a sequence number/)
      .and.match(/--count must be a whole number/);
    expect(stderr)
      .to.match(/'--jsno'; did you mean --json\?/)
      .and.match(/'--tick'; did you mean --ticks\?/);
    expect(stderr)
      .to.match(/HEADWATER_PROT is not a setting; did you mean HEADWATER_PORT\?/)
      .and.match(/HEADWATER_DRAIN must be a duration/);
    expect(stderr).to.match(/next: `headwater tail --help`/);
  });

  it('suggests a verb, also of a group', async () => {
    const [verb, sub] = await Promise.all([callCli(['stauts']), callCli(['keys', 'lst'])]);
    expect(verb.code).to.equal(2);
    expect(verb.stderr).to.match(/unknown command 'stauts'; did you mean status\?/);
    expect(sub.code).to.equal(2);
    expect(sub.stderr).to.match(/did you mean list\?/);
  });

  it('has no help for a verb that there is not, also of a group', async () => {
    const asked = [
      ['stauts', '--help'],
      ['help', 'stauts'],
      ['dlq', 'lst', '-h'],
      ['dlq', 'help', 'lst'],
    ];
    for (const args of asked) {
      const { code, stdout, stderr } = await callCli(args);
      expect({ code, stdout }, args.join(' ')).to.deep.equal({ code: 2, stdout: '' });
      expect(stderr).to.match(args[0] === 'dlq' ? /unknown command 'lst'; did you mean list\?/ : /'stauts'; did you mean status\?/);
    }
    const known = [
      ['--help'],
      ['help'],
      ['help', 'dlq'],
      ['dlq', '--help'],
      ['dlq', 'help', 'list'],
      ['backfill', 'prices', '--help'],
      ['replay', '--from', 'abc', '--help'],
    ];
    for (const args of known) {
      const { code, stdout } = await callCli(args);
      expect(code, args.join(' ')).to.equal(0);
      expect(stdout).to.include('Usage: headwater');
    }
  });

  it('names an option that stands in front of a verb', async () => {
    for (const [args, known] of [
      [['--data', '/x', 'status'], '--data'],
      [['dlq', '--json', 'list'], '--json'],
    ] as const) {
      const { code, stderr } = await callCli(args);
      expect(code, args.join(' ')).to.equal(2);
      expect(stderr).to.include(`error: unknown option '${known}'; options are given behind the verb`).and.not.include('Usage:');
    }
  });

  it('does not choose between an option and its opposite', async () => {
    const opposites = [
      ['rebuild', 'cache', '--flip', '--no-flip'],
      ['rebuild', 'cache', '--no-flip', '--flip'],
      ['dlq', 'redrive', 'cache:1', '--no-wait', '--wait', '5s'],
    ];
    for (const args of opposites) {
      const { code, stderr } = await callCli(args);
      expect(code, args.join(' ')).to.equal(2);
      expect(stderr).to.match(/give --(flip or --no-flip|wait or --no-wait), not both/);
    }
  });

  it('says what to do when nothing is running', async () => {
    const { code, stderr } = await callCli(['status']);
    expect(code).to.equal(2);
    expect(stderr)
      .to.match(/nothing is running in \/nonexistent/)
      .and.match(/npm start.*DATABASE_URL, NATS_URL, REDIS_URL/);
  });

  it('says what is wrong with a directory that is none', async () => {
    const { code, stderr } = await callCli(['rebuild', 'cache', '--data', import.meta.filename]);
    expect(code, stderr).to.equal(2);
    expect(stderr).to.match(/usage\.test\.[jt]s is no directory\nnext: .*--data or HEADWATER_DATA/);
  });

  it('refuses with 3 what has to be confirmed and cannot be', async () => {
    const { code, stderr } = await callCli(['resnapshot']);
    expect(code).to.equal(3);
    expect(stderr).to.match(/--yes/);
  });

  it('has no colour codes in a pipe', async () => {
    const { stdout, stderr } = await runCli(['config'], { HEADWATER_PORT: 'x' });
    // eslint-disable-next-line no-control-regex
    expect(stdout + stderr).to.not.match(/\u001b/);
  });
});

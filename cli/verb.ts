import { Command, type CommanderError, type HelpContext, type Option } from 'commander';
import { readConfig } from '../pipeline/runtime/config.ts';
import { type HeadwaterError, messageOf, usage } from '../pipeline/runtime/errors.ts';
import { settings } from '../pipeline/runtime/settings.ts';
import { suggestion } from '../schemas/nearest.ts';
import type { Cli } from './cli.ts';

/** Faults that parsing can go on after, so that a person hears of all of them at once. */
const collected: ReadonlySet<string> = new Set([
  'commander.unknownOption',
  'commander.missingArgument',
  'commander.optionMissingArgument',
  'commander.excessArguments',
  'commander.missingMandatoryOptionValue',
  'commander.conflictingOption',
]);

/** What commander hands to a verb: each of its arguments, then its options. */
type Arguments = Parameters<Parameters<Command['action']>[0]>;

/** A command that reports all faults of its arguments, and of the environment, together. */
export class Verb extends Command {
  readonly #cli: Cli;
  readonly #faults: string[] = [];
  /** The long names of the options that were given. */
  readonly #given = new Set<string>();
  #together: (...args: Arguments) => readonly string[] = () => [];

  constructor(name: string, cli: Cli) {
    super(name);
    this.#cli = cli;
    this.exitOverride().configureOutput({
      writeOut: (text) => void cli.out.write(text),
      writeErr: (text) => void cli.err.write(text),
      // Errors are written once, by main, from what is thrown.
      outputError: () => undefined,
      getOutHasColors: () => cli.out.colors.isColorSupported,
    });
    this.configureHelp({ showGlobalOptions: false, styleTitle: (title) => cli.out.colors.bold(title) });
    this.helpOption('-h, --help', 'show this help');
  }

  /** An option whose value is parsed; `parse` throws an Error whose message completes "--option …". */
  value<T>(flags: string, description: string, parse: (text: string, previous: T | undefined) => T): this {
    const name = flags.split(/[ ,]+/).find((part) => part.startsWith('--')) ?? flags;
    return this.option<T | undefined>(flags, description, (text, previous) => {
      // Commander asks also when the value is missing, which it has then reported.
      if (text === undefined) return undefined;
      try {
        return parse(text, previous);
      } catch (error) {
        this.#faults.push(`${name} ${messageOf(error)} (it is '${text}')`);
        return previous;
      }
    });
  }

  /** A command with verbs of its own, and nothing that it does itself, has a help verb too. */
  override addCommand(command: Command): this {
    super.addCommand(command);
    return this.#onlyVerbs() ? this.helpCommand('help [command]', 'show the help of a command') : this;
  }

  /** Commander keeps `--flip` and `--no-flip` in one value, where the last one would win. */
  override addOption(option: Option): this {
    return super.addOption(option).on(`option:${option.name()}`, () => void this.#given.add(option.long ?? ''));
  }

  /** The directory of the local servers, where `run.json` is. */
  dataOption(): this {
    const { env, default: fallback, type } = settings.data;
    return this.value('--data <dir>', `directory of local servers’ data and run.json (default: ${env}, else ${fallback})`, type.parse);
  }

  /** Runs when the arguments are sound; otherwise the faults are thrown. */
  override action(run: Parameters<Command['action']>[0]): this {
    return super.action(async (...args: unknown[]) => {
      this.#throwFaults(args);
      await run.apply(this, args);
    });
  }

  /**
   * What the verb does, in a module under `actions/`. It is loaded only when the verb runs, and with sound arguments: nobody
   * waits for the libraries of servers who asks for help, or has mistyped an option.
   */
  does(load: () => Promise<(cli: Cli, ...args: Arguments) => Promise<void>>): this {
    return this.action(async (...args: unknown[]) => (await load())(this.#cli, ...args));
  }

  /** What is wrong with the arguments taken together, each a sentence; asked when each of them is sound. */
  check(faultsOf: (...args: Arguments) => readonly string[]): this {
    this.#together = faultsOf;
    return this;
  }

  override error(message: string, options?: { exitCode?: number; code?: string }): never {
    if (options?.code === undefined || !collected.has(options.code)) super.error(message, options);
    // An option nobody knows makes its value look like an argument too many.
    const consequence = options?.code === 'commander.excessArguments' && this.#faults.length > 0;
    if (!consequence) this.#faults.push(message.replace(/^error: /, ''));
    return undefined as never;
  }

  /** Called by commander, with the first of them only. */
  unknownOption(first: string): void {
    const known = this.createHelp()
      .visibleOptions(this)
      .flatMap(({ long }) => (long ? [long] : []));
    const verbless = this.#onlyVerbs();
    const unknown = verbless ? [] : this.args.slice(Math.max(0, this.args.indexOf(first))).filter((arg) => /^-./.test(arg));
    const place = verbless ? '; options are given behind the verb' : '';
    for (const flag of new Set([first, ...unknown]))
      this.error(`unknown option '${flag}'${suggestion(flag.replace(/=.*/, ''), known) || place}`, { code: 'commander.unknownOption' });
  }

  /** Commander would show this help also for a verb that there is not (`headwater stauts --help`), or as an error in the place of faults. */
  override outputHelp(context?: HelpContext | ((text: string) => string)): void {
    const [first, second] = this.args;
    const wanted = first === 'help' ? second : first;
    const isError = typeof context === 'object' && 'error' in context && context.error;
    if (isError && this.#faults.length > 0) this.#throwFaults([]);
    if (this.#onlyVerbs() && wanted !== undefined && !wanted.startsWith('-') && !this.#verbs().includes(wanted))
      this.unknownCommand(wanted);
    super.outputHelp(context as HelpContext);
  }

  /** Called by commander. */
  unknownCommand(wanted = this.args[0] ?? ''): void {
    const names = this.#verbs();
    throw usage(
      'unknown_command',
      `unknown command '${wanted}'${suggestion(wanted, names)}`,
      `\`${pathOf(this)} --help\` lists the commands`,
    );
  }

  #onlyVerbs(): boolean {
    return this.commands.length > 0 && this.registeredArguments.length === 0;
  }

  #verbs(): readonly string[] {
    return this.createHelp()
      .visibleCommands(this)
      .map((command) => command.name());
  }

  #opposites(): readonly string[] {
    const negated = [...this.#given].filter((name) => name.startsWith('--no-'));
    return negated
      .map((name) => [name.replace('--no-', '--'), name] as const)
      .filter(([name]) => this.#given.has(name))
      .map((names) => `give ${names.join(' or ')}, not both`);
  }

  #throwFaults(args: unknown[]): void {
    const alone = [...this.#faults, ...this.#opposites()];
    const faults = alone.length > 0 ? alone : [...this.#together(...args)];
    if (faults.length === 0) return;
    try {
      readConfig(this.#cli.env);
    } catch (error) {
      faults.push(messageOf(error));
    }
    throw usage('bad_arguments', faults.join('\n'), `\`${pathOf(this)} --help\` shows what it takes`);
  }
}

/**
 * A command with its help.
 * @param examples command lines without the leading `headwater`, each with what it does
 */
export function verb(cli: Cli, name: string, summary: string, examples: readonly (readonly [string, string])[]): Verb {
  const width = Math.max(...examples.map(([line]) => line.length));
  const lines = examples.map(([line, what]) => `  headwater ${line.padEnd(width)}  ${cli.out.colors.dim(`# ${what}`)}`);
  return new Verb(name, cli)
    .summary(summary.split(/(?<=\.) /)[0] ?? summary)
    .description(summary)
    .addHelpText('after', `\n${cli.out.colors.bold('Examples:')}\n${lines.join('\n')}`);
}

/** A commander error as one of ours. */
export function fromCommander(error: CommanderError): HeadwaterError {
  return usage('bad_arguments', error.message.replace(/^error: /, ''), '`headwater --help` lists the commands');
}

function pathOf(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) names.unshift(at.name());
  return names.join(' ');
}

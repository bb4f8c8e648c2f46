import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { outputOn } from '../cli/output.ts';
import { table } from '../cli/table.ts';
import { projectFile } from '../deploy/local/paths.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import { suggestion } from '../schemas/nearest.ts';
import { aggregatesBench } from './aggregates.ts';
import { alertDeliveryBench } from './alert-delivery.ts';
import { alertEngineBench } from './alert-engine.ts';
import { alertsBench } from './alerts.ts';
import { captureMemoryBench } from './capture-memory.ts';
import { captureBench } from './capture.ts';
import { latencyBench } from './latency.ts';
import type { Bench, Report } from './lib/bench.ts';
import { describeMachine, machineLine, type Machine } from './lib/machine.ts';
import { scoped } from './lib/scope.ts';
import { startServers } from './lib/servers.ts';
import { queryBench } from './query.ts';
import { readBench } from './read.ts';
import { rebuildBench } from './rebuild.ts';
import { replayBench } from './replay.ts';

const benches: readonly Bench[] = [
  captureBench,
  captureMemoryBench,
  latencyBench,
  alertsBench,
  alertDeliveryBench,
  alertEngineBench,
  aggregatesBench,
  queryBench,
  replayBench,
  readBench,
  rebuildBench,
];

const help = `Usage: npm run bench -- <name> [options]

Measures on real servers of its own, in a temporary directory, beside a yardstick in the same run.

Benches:
${benches.map(({ name, about }) => `  ${name.padEnd(16)} ${about}`).join('\n')}

Options:
  --runs <n>       measurements of each size; the medians are printed (default: 3)
  --quick          one run of a tenth of the work, to see whether it works
  --json <file>    where to write every measurement (default: bench/results/<name>.json)
  --data <dir>     where the servers' temporary data goes (default: the system's temporary directory)
  --profile <dir>  write CPU profiles of the Headwater processes to this directory
  --help           this text

Example: npm run bench -- capture --quick`;

interface Options {
  readonly bench: Bench;
  readonly runs: number;
  readonly quick: boolean;
  readonly json: string;
  readonly data: string | undefined;
  readonly profile: string | undefined;
}

/** A mistake on the command line. */
class UsageError extends Error {}

function parse(args: readonly string[]): Options | 'help' {
  const { values, positionals } = parsed(args);
  if (values.help === true) return 'help';
  const [name, ...rest] = positionals;
  if (name === undefined) throw new UsageError('which bench?');
  if (rest.length > 0) throw new UsageError(`one bench at a time: ${rest.join(', ')} is too much`);
  const bench = benches.find((each) => each.name === name);
  if (!bench)
    throw new UsageError(
      `'${name}' is not a bench${suggestion(
        name,
        benches.map((each) => each.name),
      )}`,
    );
  const quick = values.quick ?? false;
  const runs = values.runs ?? (quick ? '1' : '3');
  if (!/^[1-9]\d{0,2}$/.test(runs)) throw new UsageError(`--runs must be a whole number from 1 to 999, not '${runs}'`);
  return {
    bench,
    runs: Number(runs),
    quick,
    json: values.json ?? projectFile(`bench/results/${name}${quick ? '-quick' : ''}.json`),
    data: values.data,
    profile: values.profile === undefined ? undefined : resolve(values.profile),
  };
}

function parsed(args: readonly string[]) {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { runs: text, quick: flag, json: text, data: text, profile: text, help: { ...flag, short: 'h' } },
    });
  } catch (error) {
    throw new UsageError(messageOf(error));
  }
}

async function run({ bench, runs, quick, json, data, profile }: Options, signal: AbortSignal): Promise<void> {
  const say = (line: string): void => console.error(line);
  const { machine, report } = await scoped(async (scope) => {
    const servers = await startServers(scope, signal, data);
    const found = await describeMachine(servers);
    say(machineLine(found));
    return { machine: found, report: await bench.run({ servers, runs, quick, profile, signal, say }) };
  });
  print(bench, machine, report, quick ? ` (quick: not for publishing)` : `, median of ${runs}`);
  const result = { bench: bench.name, at: new Date().toISOString(), quick, runs, machine, measurements: report.measurements };
  mkdirSync(dirname(resolve(json)), { recursive: true });
  writeFileSync(json, `${JSON.stringify(result, undefined, 2)}\n`);
  say(`every measurement: ${json}`);
}

function print({ name }: Bench, machine: Machine, { tables, notes }: Report, how: string): void {
  const output = outputOn(process.stdout, process.env);
  console.log(`\nBench ${name}${how}\n${machineLine(machine)}`);
  for (const { title, head, rows } of tables) console.log(`\n${title}\n\n${table(output, head, rows)}`);
  console.log(`\n${notes.join('\n')}`);
}

/** The conventional codes of a process that a signal ended. */
const signalCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** Whatever ends the bench early must not leave its servers behind: it aborts what runs, and that cleans up after itself. */
function abortEarly(): { signal: AbortSignal; exitCode: () => number | undefined } {
  const stopping = new AbortController();
  let exitCode: number | undefined;
  const stop = (code: number, reason: Error): void => {
    exitCode ??= code;
    stopping.abort(reason);
  };
  for (const [name, code] of Object.entries(signalCodes)) {
    process.on(name, () => {
      // The second signal ends it at once.
      if (stopping.signal.aborted) process.exit(code);
      console.error('stopping, and removing what was started');
      stop(code, new Error(`stopped by ${name}`));
    });
  }
  for (const stream of [process.stdout, process.stderr]) stream.on('error', (error: Error) => stop(1, error));
  process.on('uncaughtException', (error) => {
    console.error(error);
    stop(1, error);
  });
  return { signal: stopping.signal, exitCode: () => exitCode };
}

/** Exit code: 0 done, 1 failed, 2 usage, 128 and more ended by a signal. */
async function main(args: readonly string[]): Promise<number> {
  const { signal, exitCode } = abortEarly();
  try {
    const options = parse(args);
    if (options === 'help') console.log(help);
    else await run(options, signal);
    return exitCode() ?? 0;
  } catch (error) {
    const code = exitCode();
    if (code !== undefined) return code;
    if (error instanceof UsageError) {
      console.error(`${error.message}\n\n${help}`);
      return 2;
    }
    console.error(`the bench failed: ${messageOf(error)}`);
    return 1;
  }
}

process.exit(await main(process.argv.slice(2)));

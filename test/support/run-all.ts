import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../project-root.ts';
import { epilogueBegins, sumOf, textOf, type Sum } from './reporter.ts';

/**
 * Runs all compiled tests as two mocha processes side by side, each with servers of its own: most tests wait more than they
 * compute. It prints what one mocha would print: every test with its time, then all failures, then the sum. Exits with 1 when
 * a test has failed, or when one of the two did not come to its end.
 */

/** Folders of `dist/test` that take about as long as all others together. */
const first: ReadonlySet<string> = new Set(['cli', 'pipeline', 'schemas']);

const root = projectRoot();
const tests = join(root, 'dist', 'test');

/** One of the two processes, and what it has written. */
interface Part {
  /** What has been written and not been shown yet. */
  body: string;
  /** What belongs at the very end; undefined until it has begun. */
  epilogue: string | undefined;
  /** Shows what comes as it comes. */
  live: boolean;
  readonly ended: Promise<boolean>;
}

function start(files: readonly string[]): Part {
  const color = process.stdout.isTTY ? ['--color'] : [];
  const child = spawn(process.execPath, [join(root, 'node_modules', 'mocha', 'bin', 'mocha.js'), ...color, ...files], {
    cwd: root,
    env: { ...process.env, TEST_PART: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // Ctrl-C reaches the whole group; what is sent to this process alone is passed on. Either way it ends with its children.
  process.on('SIGINT', () => undefined);
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  const part: Part = { body: '', epilogue: undefined, live: false, ended: once(child, 'close').then(([code]) => code === 0) };
  child.stdout.setEncoding('utf8').on('data', (text: string) => take(part, text));
  return part;
}

function take(part: Part, text: string): void {
  if (part.epilogue !== undefined) {
    part.epilogue += text;
    return;
  }
  part.body += text;
  const at = part.body.indexOf(epilogueBegins);
  if (at >= 0) {
    part.epilogue = part.body.slice(at + epilogueBegins.length);
    part.body = part.body.slice(0, at);
  }
  if (part.live) show(part);
}

/** Shows what there is, but for what may be the beginning of the mark. */
function show(part: Part): void {
  const mark = part.body.indexOf(epilogueBegins[0]!);
  const end = mark < 0 ? part.body.length : mark;
  process.stdout.write(part.body.slice(0, end));
  part.body = part.body.slice(end);
}

const files = readdirSync(tests, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.js'))
  .sort();
const isFirst = (file: string): boolean => first.has(file.split('/')[0]!);
const parts = [files.filter(isFirst), files.filter((file) => !isFirst(file))].map((some) => start(some.map((file) => join(tests, file))));

let failed = false;
for (const part of parts) {
  part.live = true;
  show(part);
  if (!(await part.ended)) failed = true;
  process.stdout.write(part.body);
}
const sum: Sum = { passes: 0, failures: 0, pending: 0 };
for (const { epilogue = '' } of parts) {
  process.stdout.write(epilogue);
  const own = sumOf(epilogue);
  if (!own) {
    failed = true;
    process.stderr.write('one of the two test processes did not come to its end\n');
  }
  for (const name of ['passes', 'failures', 'pending'] as const) sum[name] += own?.[name] ?? 0;
}
process.stdout.write(`\n${textOf(sum)}\n`);
process.exitCode = failed || sum.failures > 0 ? 1 : 0;

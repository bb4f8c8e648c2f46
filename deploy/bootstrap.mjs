// Makes a fresh clone ready: packages, build, and without arguments the local servers' programs too. With arguments it then
// runs the command line with them in this same process, so that Ctrl-C reaches it directly. Plain Node, no packages: it runs
// before anything is installed.
//
//   node deploy/bootstrap.mjs               what `npm test` does first
//   node deploy/bootstrap.mjs up --demo     what `npm start` does
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, extname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const oldestNode = [20, 19];

function say(text) {
  process.stderr.write(`headwater: ${text}\n`);
}

function stop(text, code = 1) {
  say(text);
  process.exit(code);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])) return;
  stop(`Node ${oldestNode.join('.')} or newer is needed; this is ${process.versions.node} (${process.execPath})`, 2);
}

/** When a file was last written, or 0 when it does not exist. */
function writtenAt(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** Runs a program to its end; its output goes to stderr, since stdout belongs to the command that comes after. */
function run(what, command, args) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', process.stderr, process.stderr] });
  if (error) stop(`${what} could not be run: ${error.message}`);
  if (signal) stop(`${what} was ended by ${signal}`, 130);
  return status === 0;
}

/** npm itself: the one we were started by, or the one on PATH. */
function npm(...args) {
  const path = process.env.npm_execpath;
  const [command, first] = path && /\.c?js$/.test(path) ? [process.execPath, [path]] : ['npm', []];
  return run(`npm ${args[0]}`, command, [...first, ...args]);
}

function installPackages() {
  const lock = join(root, 'package-lock.json');
  // npm writes this file last, so it also says that the installation was finished.
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (writtenAt(installed) > 0 && writtenAt(installed) >= writtenAt(lock)) return;
  say('installing packages (npm ci)');
  // Whatever NODE_ENV says: the build needs the development packages.
  if (!npm('ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error')) stop('npm ci failed; see above');
}

/** All files below a directory, as paths from it. */
function filesBelow(directory) {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath ?? entry.path, entry.name)));
}

/** Why a build is needed, or undefined when `dist` is what the sources give. */
function reasonToBuild(output) {
  const builtAt = writtenAt(join(output, 'cli', 'main.js'));
  if (builtAt === 0) return 'not built yet';
  for (const file of ['tsconfig.json', 'package-lock.json']) if (writtenAt(join(root, file)) > builtAt) return `${file} has changed`;
  const { include, exclude = [] } = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8'));
  const expected = new Set();
  for (const directory of include) {
    for (const name of filesBelow(join(root, directory))) {
      const file = join(directory, name);
      const extension = extname(file);
      if (exclude.some((path) => file.startsWith(`${path}/`)) || file.endsWith('.d.ts') || !['.ts', '.json', '.yaml'].includes(extension))
        continue;
      // A source has its output; JSON and YAML may be part of another file's.
      const built = extension === '.ts' ? join(output, `${file.slice(0, -3)}.js`) : join(output, 'cli', 'main.js');
      if (writtenAt(join(root, file)) > writtenAt(built)) return `${file} has changed`;
      if (extension === '.ts') expected.add(`${file.slice(0, -3)}.js`);
    }
  }
  const stale = filesBelow(output).find((file) => file.endsWith('.js') && !expected.has(file));
  return stale === undefined ? undefined : `${stale} has no source any more`;
}

/** Empties a directory, which itself may be a mount. */
function empty(directory) {
  if (existsSync(directory)) for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true, force: true });
}

/** Builds from nothing, so that no output of a deleted source stays. A failed build leaves nothing either: it is not to be run. */
function build() {
  const output = join(root, 'dist');
  const reason = reasonToBuild(output);
  if (reason === undefined) return;
  say(`building (${reason})`);
  empty(output);
  if (run('tsc', process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', join(root, 'tsconfig.json')])) {
    makeExecutable();
    return;
  }
  empty(output);
  stop('the build failed; see above');
}

/** npm does so when it links a program for the first time, and not when it has been built again since. */
function makeExecutable() {
  const { bin = {} } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  for (const path of Object.values(bin)) chmodSync(join(root, path), 0o755);
}

async function main(args) {
  checkNode();
  installPackages();
  build();
  if (args.length === 0) {
    const { preparePrograms } = await import(pathToFileURL(join(root, 'dist', 'deploy', 'local', 'prepare.js')).href);
    await preparePrograms();
    return;
  }
  const path = join(root, 'dist', 'cli', 'main.js');
  process.argv = [process.argv[0], path, ...args];
  await import(pathToFileURL(path).href);
}

await main(process.argv.slice(2));

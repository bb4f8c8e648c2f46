import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { projectFile } from '../../deploy/local/paths.ts';
import { temporaryDirectory } from '../support/servers.ts';

/** A small project of the same shape, with the real bootstrap and the real compiler. */
describe('bootstrap', () => {
  let root: string;
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const run = (...args: string[]): { stdout: string; stderr: string; status: number | null } => {
    const { stdout, stderr, status } = spawnSync(process.execPath, [join(root, 'deploy/bootstrap.mjs'), ...args], {
      encoding: 'utf8',
      cwd: '/',
    });
    return { stdout, stderr, status };
  };

  before(() => {
    root = temporaryDirectory();
    mkdirSync(join(root, 'deploy'));
    cpSync(projectFile('deploy/bootstrap.mjs'), join(root, 'deploy/bootstrap.mjs'));
    symlinkSync(projectFile('node_modules'), join(root, 'node_modules'));
    put('package.json', '{ "type": "module", "bin": { "small": "dist/cli/main.js" } }');
    put('package-lock.json', '{}');
    utimesSync(join(root, 'package-lock.json'), 1, 1);
    const compilerOptions = {
      target: 'es2023',
      module: 'nodenext',
      rootDir: '.',
      outDir: 'dist',
      types: ['node'],
      resolveJsonModule: true,
      rewriteRelativeImportExtensions: true,
    };
    put('tsconfig.json', JSON.stringify({ compilerOptions, include: ['cli', 'test'], exclude: ['test/fixtures'] }));
    put(
      'cli/main.ts',
      `#!/usr/bin/env node\nimport { word } from './word.ts';\nconsole.log(JSON.stringify([word, ...process.argv.slice(2)]));\n`,
    );
    put('cli/word.ts', `export const word: string = 'one';\n`);
    put('test/old.test.ts', 'export {};\n');
    put('test/fixtures/broken.ts', 'not a program\n');
  });
  after(() => rmSync(root, { recursive: true, force: true }));

  it('builds when there is no build, and runs the command line with its arguments', () => {
    const { stdout, stderr, status } = run('up', '--demo');
    expect(status, stderr).to.equal(0);
    expect(JSON.parse(stdout)).to.deep.equal(['one', 'up', '--demo']);
    expect(stderr).to.contain('building (not built yet)');
  });

  it('does not build again without need', () => {
    expect(run('x').stderr).to.equal('');
  });

  it('builds when a source has changed, a program that can be run as it is, and nothing of deleted sources stays', () => {
    put('cli/word.ts', `export const word: string = 'two';\n`);
    rmSync(join(root, 'test/old.test.ts'));
    const { stdout } = run('x');
    expect(JSON.parse(stdout)).to.deep.equal(['two', 'x']);
    expect(JSON.parse(spawnSync(join(root, 'dist/cli/main.js'), ['y'], { encoding: 'utf8' }).stdout)).to.deep.equal(['two', 'y']);
    expect(existsSync(join(root, 'dist/test/old.test.js'))).to.equal(false);
  });

  it('builds when only a deleted source makes the difference', () => {
    put('test/other.test.ts', 'export {};\n');
    run('x');
    rmSync(join(root, 'test/other.test.ts'));
    expect(run('x').stderr).to.contain('test/other.test.js has no source any more');
    expect(existsSync(join(root, 'dist/test/other.test.js'))).to.equal(false);
  });

  it('runs nothing when the build fails, neither now nor at the next start', () => {
    put('cli/word.ts', `export const word: string = 3;\n`);
    for (let i = 0; i < 2; i++) {
      const { stdout, stderr, status } = run('x');
      expect([stdout, status]).to.deep.equal(['', 1]);
      expect(stderr).to.contain('cli/word.ts(1,14): error').and.to.contain('the build failed');
    }
  });
});

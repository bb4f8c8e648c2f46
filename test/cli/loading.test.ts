import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { processors } from '../../processors/index.ts';
import { roleNames } from '../../cli/roles/start-roles.ts';
import { projectRoot } from '../project-root.ts';
import { callCli } from './support/call-cli.ts';

const root = projectRoot();

/**
 * The packages that are loaded with a source, each with the way there. Only what is imported at once counts: neither `import()`, nor
 * `import type`, which nothing is left of.
 */
function packagesOf(entry: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const seen = new Set<string>();
  const visit = (file: string, way: readonly string[]): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const specifier of importedAtOnce(readFileSync(join(root, file), 'utf8'))) {
      if (specifier.startsWith('.')) visit(join(dirname(file), specifier), [...way, file]);
      else if (!specifier.startsWith('node:')) {
        const name = /^(@[^/]+\/)?[^/]+/.exec(specifier)![0];
        if (!found.has(name)) found.set(name, [...way, file].join(' → '));
      }
    }
  };
  visit(entry, []);
  return found;
}

function importedAtOnce(source: string): readonly string[] {
  const statements = /^(?:import|export)\s+(?!type\b)(?:[^'"`;]*?\bfrom\s*)?['"]([^'"]+)['"]/gm;
  return [...source.matchAll(statements)].map((match) => match[1]!);
}

/** What of a source's packages is not among these, each with the way there. */
function unwanted(entry: string, allowed: readonly RegExp[]): readonly string[] {
  return [...packagesOf(entry)].filter(([name]) => !allowed.some((pattern) => pattern.test(name))).map(([name, way]) => `${name}: ${way}`);
}

describe('command line: what is loaded', () => {
  const output = [/^picocolors$/, /^cli-table3$/];
  const logger = [/^pino(-pretty)?$/];
  const nats = [/^@nats-io\//];
  const postgres = [/^pg(-copy-streams)?$/];

  it('knows what is imported at once', () => {
    const source = `import a from 'a';
import type { b } from 'b';
import {
  c,
  type C,
} from "c";
import 'd';
export { e } from 'e';
const f = await import('f');
export const g = async () => (await import('g')).g;
`;
    expect(importedAtOnce(source)).to.deep.equal(['a', 'c', 'd', 'e']);
  });

  it('help and mistakes wait for no library but that of the command line', () => {
    expect([...packagesOf('cli/main.ts').keys()].sort()).to.deep.equal(['commander', 'picocolors']);
  });

  for (const [verbs, allowed] of [
    [['config'], output],
    [['rules'], [...output, /^yaml$/]],
    [
      ['tail', 'consumers', 'replay'],
      [...output, ...logger, ...nats],
    ],
    [
      ['keys', 'migrate', 'catalog'],
      [...output, ...logger, ...postgres],
    ],
  ] as const) {
    it(`${verbs.join(', ')}: no client of a server that they do not ask`, () => {
      expect(verbs.flatMap((verb) => unwanted(`cli/actions/${verb}.ts`, allowed))).to.deep.equal([]);
    });
  }

  it('the help still names every role, and every processor that can be rebuilt', async () => {
    const { stdout: ofRun } = await callCli(['run', '--help']);
    const { stdout: ofRebuild } = await callCli(['rebuild', '--help']);
    for (const name of roleNames(processors)) expect(ofRun, 'run').to.match(new RegExp(`\\b${name}\\b`));
    for (const { name, rebuild } of processors)
      if (rebuild) expect(ofRebuild.slice(0, ofRebuild.indexOf('Options:')), 'rebuild').to.match(new RegExp(`\\b${name}\\b`));
  });
});

import { expect } from 'chai';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { projectRoot } from './project-root.ts';

/**
 * What a folder may import besides itself: schemas ← pipeline ← { processors, gateway } ← cli. Benches and tests may
 * import everything; the client runs in browsers and may import nothing but the schemas.
 */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  schemas: [],
  client: ['schemas'],
  pipeline: ['schemas'],
  processors: ['schemas', 'pipeline'],
  gateway: ['schemas', 'pipeline'],
  deploy: ['schemas', 'pipeline'],
  cli: ['schemas', 'pipeline', 'processors', 'gateway', 'deploy'],
  bench: ['schemas', 'pipeline', 'processors', 'gateway', 'deploy', 'cli', 'client'],
  test: ['schemas', 'pipeline', 'processors', 'gateway', 'deploy', 'cli', 'client', 'bench'],
};

/** The one file that imports each client library; of a folder, any one file of it. */
const importers: readonly { readonly library: RegExp; readonly place: string }[] = [
  { library: /^@nats-io\//, place: 'pipeline/clients/nats.ts' },
  { library: /^pg$|^pg-copy-streams$/, place: 'pipeline/clients/postgres.ts' },
  { library: /^ioredis$/, place: 'pipeline/clients/redis.ts' },
  { library: /^ws$/, place: 'gateway/' },
  { library: /^@fastify\/rate-limit$/, place: 'gateway/query/routes.ts' },
  { library: /^bullmq$/, place: 'pipeline/clients/bullmq.ts' },
  { library: /^nodemailer$/, place: 'processors/notify/channels/email.ts' },
  { library: /^ipaddr\.js$/, place: 'processors/notify/channels/guard/address.ts' },
];

/** Tests and benches drive servers with libraries of their own, as outsiders would. */
const exempt = /^(test|bench)\//;

interface Import {
  readonly file: string;
  readonly specifier: string;
}

const root = projectRoot();
/** This file itself is left out: it quotes imports that are none. */
const files = Object.keys(mayImport)
  .flatMap(sourcesIn)
  .filter((file) => !file.startsWith('test/architecture.'));
const imports = files.flatMap((file) =>
  specifiersOf(readFileSync(join(root, file), 'utf8')).map((specifier): Import => ({ file, specifier })),
);

/** The sources below a folder, as paths from the root with forward slashes. */
function sourcesIn(folder: string): readonly string[] {
  const path = join(root, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(ts|mts|mjs|js)$/.test(name) && !name.split(sep).includes('node_modules'))
    .map((name) => `${folder}/${name.split(sep).join('/')}`);
}

/** What a source imports or exports from elsewhere, with comments taken out first. */
function specifiersOf(source: string): readonly string[] {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const statements = /^\s*(?:import|export)\b(?:[^'"`;]*?\bfrom)?\s*['"]([^'"]+)['"]/gm;
  const calls = /\b(?:import|require)\s*\(\s*['"]([^'"]+)['"]/g;
  return [statements, calls].flatMap((pattern) => [...code.matchAll(pattern)].map((match) => match[1]!));
}

function isRelative({ specifier }: Import): boolean {
  return specifier.startsWith('.');
}

/** The imported file as a path from the root. */
function target({ file, specifier }: Import): string {
  return relative(root, resolve(root, dirname(file), specifier))
    .split(sep)
    .join('/');
}

function folderOf(path: string): string {
  return path.split('/')[0]!;
}

describe('architecture', () => {
  it('looks at the sources and their imports', () => {
    for (const folder of ['schemas', 'pipeline', 'processors', 'gateway', 'deploy', 'cli', 'test']) {
      expect(files.filter((file) => file.startsWith(`${folder}/`)).length, folder).to.be.greaterThan(0);
    }
    expect(imports.filter(isRelative).length).to.be.greaterThan(files.length / 2);
    expect(imports.filter((each) => !isRelative(each)).length).to.be.greaterThan(0);
  });

  it('finds imports in all their forms, and none in comments', () => {
    const source = `import a from 'a';
import type { b } from './b.ts';
import {
  c,
} from "../c.ts";
import 'd';
export { e } from './e.ts';
export * from './f.ts';
const g = await import('./g.ts');
// import h from 'h';
/* import i from 'i'; */
/** See import('j'). */
export const k = 'from l';
export type M = import('./m.ts').M;
`;
    expect(specifiersOf(source)).to.deep.equal(['a', './b.ts', '../c.ts', 'd', './e.ts', './f.ts', './g.ts', './m.ts']);
  });

  it('keeps the dependency rule', () => {
    const broken = imports.filter(isRelative).filter((each) => {
      const from = folderOf(each.file);
      const to = folderOf(target(each));
      return from !== to && !mayImport[from]?.includes(to);
    });
    expect(broken.map((each) => `${each.file} imports ${target(each)}`)).to.deep.equal([]);
  });

  it('has no import of a file that is not there', () => {
    const missing = imports.filter(isRelative).filter((each) => !existsSync(join(root, target(each))));
    expect(missing.map((each) => `${each.file} imports ${each.specifier}`)).to.deep.equal([]);
  });

  for (const { library, place } of importers) {
    it(`has one file that imports ${library.source}, in ${place}`, () => {
      const own = imports.filter(({ file, specifier }) => library.test(specifier) && !exempt.test(file));
      const found = [...new Set(own.map(({ file }) => file))];
      expect(found.filter((file) => !file.startsWith(place))).to.deep.equal([]);
      expect(found.length, found.join(', ')).to.be.lessThan(2);
    });
  }

  it('keeps the client free of packages', () => {
    const packages = imports.filter((each) => each.file.startsWith('client/') && !isRelative(each));
    expect(packages.map((each) => `${each.file} imports ${each.specifier}`)).to.deep.equal([]);
  });

  it('has no barrels: files that only pass on what others export', () => {
    const barrels = files.filter((file) => {
      const code = readFileSync(join(root, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
      const rest = code.replace(/^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"][^'"]+['"];?/gm, '').trim();
      return code.trim() !== '' && rest === '';
    });
    expect(barrels).to.deep.equal([]);
  });

  it('has no folders or files by kind', () => {
    expect(files.filter((file) => /(^|\/)(utils?|helpers?|common|misc|interfaces|classes)(\/|\.)/.test(file))).to.deep.equal([]);
  });
});

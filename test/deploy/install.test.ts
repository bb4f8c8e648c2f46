import { expect } from 'chai';
import { parseLines, parseStanzas } from '../../deploy/local/install-debian.ts';
import { provideProgram } from '../../deploy/local/install.ts';
import { compareVersions } from '../../deploy/local/programs.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { removeData, temporaryDirectory } from '../support/servers.ts';

describe('finding and installing servers', () => {
  it('compares versions by number, not by letter', () => {
    expect(compareVersions('2.9.10', '2.14.4')).to.be.lessThan(0);
    expect(compareVersions('2.14.10', '2.14.4')).to.be.greaterThan(0);
    expect(compareVersions('14', '14.0')).to.equal(0);
  });

  it('reads package sources of both forms, with their keys', () => {
    const lines =
      '# deb http://comment.example/ x main\ndeb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main contrib # note\ndeb-src http://mirror.example/debian bookworm main\n';
    expect(parseLines(lines)).to.deep.equal([
      { uri: 'http://mirror.example/debian', suite: 'bookworm', components: ['main', 'contrib'], signedBy: '/usr/share/keyrings/k.gpg' },
    ]);
    const stanzas =
      'Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: x\nComponents: main\n';
    expect(parseStanzas(stanzas).map(({ uri, suite, signedBy }) => [uri, suite, signedBy])).to.deep.equal([
      ['http://mirror.example/debian', 'bookworm', '/usr/share/keyrings/k.gpg'],
      ['http://mirror.example/debian', 'bookworm-updates', '/usr/share/keyrings/k.gpg'],
    ]);
  });

  it('names what is missing, and the command that installs it', async () => {
    const cache = temporaryDirectory();
    const log = silentLogger();
    // A major version that no machine has stands for a program that is missing.
    const error = await provideProgram('redis', { cache, major: '999', install: false, log, signal: new AbortController().signal }).catch(
      (fault: unknown) => fault,
    );
    await removeData(cache);
    expect(error).to.be.instanceOf(HeadwaterError).with.property('code', 'program_missing');
    expect((error as HeadwaterError).message).to.match(/Redis 999/);
    expect((error as HeadwaterError).hint).to.be.a('string');
  });
});

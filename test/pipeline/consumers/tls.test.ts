import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { provideProgram } from '../../../deploy/local/install.ts';
import { cacheDirectory, projectFile } from '../../../deploy/local/paths.ts';
import { choosePort } from '../../../deploy/local/ports.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { runCli } from '../../cli/support/run-cli.ts';
import { until } from '../../support/role-context.ts';

describe('nats.conf with a certificate', function () {
  this.timeout(60_000);
  let folder: string;

  before(function () {
    folder = mkdtempSync(join(tmpdir(), 'headwater-tls-'));
    const request = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '1',
      '-subj',
      '/CN=localhost',
    ];
    const files = ['-addext', 'subjectAltName=DNS:localhost', '-keyout', join(folder, 'server.key'), '-out', join(folder, 'server.crt')];
    if (spawnSync('openssl', [...request, ...files]).status !== 0) {
      this.test!.title += ' (left out: openssl is not installed)';
      this.skip();
    }
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('is reached by tls:// with its CA, and not without', async () => {
    // As whoever has a certificate would do it: the lines uncommented, with their own paths.
    const text = readFileSync(projectFile('nats.conf'), 'utf8');
    const own = text.replace(/^# (tls \{|\}|  (?:cert|key)_file: .*)$/gm, '$1').replaceAll('/etc/headwater/tls', folder);
    expect(own).to.match(/^tls \{$/m);
    writeFileSync(join(folder, 'nats.conf'), own);
    copyFileSync(projectFile('teams.conf'), join(folder, 'teams.conf'));
    const options = {
      cache: cacheDirectory(projectFile('.headwater')),
      install: true,
      log: silentLogger(),
      signal: new AbortController().signal,
    };
    const { path, env } = await provideProgram('nats', options);
    const port = await choosePort();
    const passwords = Object.fromEntries(
      ['OPERATOR', 'CAPTURE', 'PROCESSOR', 'GATEWAY'].map((user) => [`NATS_${user}_PASSWORD`, 'secret']),
    );
    const server = spawn(path, ['--config', join(folder, 'nats.conf')], {
      env: { ...process.env, ...env, ...passwords, NATS_HOST: '127.0.0.1', NATS_PORT: String(port), NATS_STORE: join(folder, 'store') },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    server.stderr.setEncoding('utf8').on('data', (chunk: string) => (log += chunk));
    try {
      await until(() => log.includes('Server is ready'), 20_000, 'the server');
      const NATS_URL = `tls://operator:secret@localhost:${port}`;
      // It gets as far as asking for the log, which nobody has made.
      const known = await runCli(['consumers', 'list'], { NATS_URL, NODE_EXTRA_CA_CERTS: join(folder, 'server.crt') });
      expect(known.stderr).to.include('stream EVENTS is not there');
      const unknown = await runCli(['consumers', 'list'], { NATS_URL });
      expect(unknown.stderr).to.match(/does not answer: .*self-signed/);
    } finally {
      server.kill();
      await once(server, 'close');
    }
  });
});

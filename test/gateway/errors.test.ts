import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { errorCodes } from '../../schemas/error-codes.ts';
import { createValidators } from '../../schemas/validate.ts';
import { projectRoot } from '../project-root.ts';
import { memoryHarness, type Harness } from './support/harness.ts';

const { errorBody } = createValidators();
const key = { authorization: 'Bearer secret' };

/** The rows of the documentation's table whose first column has this heading, each by heading. */
function tableOf(heading: string): Record<string, string>[] {
  const lines = readFileSync(join(projectRoot(), 'docs', 'errors.md'), 'utf8').split('\n');
  const cells = (line: string): string[] =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const begin = lines.findIndex((line) => line.startsWith('|') && cells(line)[0] === heading);
  const head = cells(lines[begin]!);
  const end = lines.findIndex((line, i) => i > begin && !line.startsWith('|'));
  return lines.slice(begin + 2, end).map((line) => Object.fromEntries(cells(line).map((cell, i) => [head[i]!, cell])));
}

describe('error codes', () => {
  it('are documented as they are sent: every code, its status, its close code, and whether it comes in a frame', () => {
    const documented = tableOf('Code').map(({ Code: code, HTTP: status, Frame: frame, Close: close, Means: means }) => {
      expect(means, code).to.match(/\.$/);
      const use = { ...(status !== '–' && { status: Number(status) }), ...(frame === 'yes' && { frame: true }) };
      return [code!.replaceAll('`', ''), { ...use, ...(close !== '–' && { close: Number(close) }) }];
    });
    expect(new Set(documented.map(([code]) => code))).to.have.property('size', documented.length);
    expect(Object.fromEntries(documented)).to.deep.equal(errorCodes);
  });

  it('has the close codes in a table of their own, which says after which of them to resume', () => {
    const ours = tableOf('Close code').filter(({ Name: name }) => name!.startsWith('`'));
    const documented = ours.map((row) => [row['Name']!.replaceAll('`', ''), Number(row['Close code']), row['Resume'] === 'yes']);
    const sent = Object.entries(errorCodes).flatMap(([code, use]) => ('close' in use ? [[code, use.close, use.close < 4400]] : []));
    expect(documented).to.have.deep.members(sent);
  });
});

describe('gateway, HTTP errors', () => {
  let at: Harness;
  before(async () => {
    at = await memoryHarness({
      parts: {
        routes: [
          (app) => {
            app.get('/v2/rows/*', () => ({}));
            app.get('/v2/things/:id', () => ({}));
            app.post('/v2/things/:id', () => ({}));
            app.get('/v2/broken', () => Promise.reject(new Error('secret detail')));
          },
        ],
      },
    });
  });
  after(() => at.stop());

  const cases: [string, RequestInit, number, string, Record<string, string>?][] = [
    ['/nothing', {}, 404, 'not_found'],
    ['/v2/nothing', { headers: key }, 404, 'not_found'],
    ['/v2/nothing', {}, 401, 'unauthorized', { 'www-authenticate': 'Bearer' }],
    ['/v2/rows/a.b/1', {}, 401, 'unauthorized'],
    ['/v2/rows/a.b/1', { headers: { authorization: 'Bearer wrong' } }, 401, 'unauthorized'],
    ['/v2/rows/a.b/1', { headers: { authorization: 'Basic c2VjcmV0' } }, 401, 'unauthorized'],
    ['/v2/rows/a.b/1', { headers: key, method: 'POST' }, 405, 'method_not_allowed', { allow: 'GET, HEAD' }],
    ['/v2/rows/a.b/1', { headers: key, method: 'DELETE' }, 405, 'method_not_allowed'],
    ['/v2/things/1', { headers: key, method: 'PUT', body: 'x' }, 405, 'method_not_allowed', { allow: 'GET, HEAD, POST' }],
    ['/v2/things/1/more', { headers: key, method: 'PUT' }, 404, 'not_found'],
    ['/v2/rows/a.b/1?api_key=secret', { headers: key }, 400, 'bad_request'],
    ['/v2/nothing?x=1&access_token=secret', {}, 400, 'bad_request'],
    ['/v2/rows/a.b/%ZZ', { headers: key }, 400, 'bad_request'],
    ['/v2/%', {}, 400, 'bad_request'],
    [`/v2/rows/${'x'.repeat(20_000)}`, { headers: key }, 400, 'bad_request'],
    ['/v2/things/1', { headers: { ...key, 'content-type': 'application/json' }, method: 'POST', body: '{' }, 400, 'bad_request'],
    ['/v2/things/1', { headers: { ...key, 'content-type': 'text/csv' }, method: 'POST', body: 'x' }, 415, 'unsupported_media_type'],
    [
      '/v2/things/1',
      { headers: { ...key, 'content-type': 'application/json' }, method: 'POST', body: `"${'x'.repeat(1024 ** 2)}"` },
      413,
      'too_large',
    ],
    ['/v2/realtime', {}, 426, 'upgrade_required', { upgrade: 'websocket' }],
    ['/v2/broken', { headers: key }, 500, 'internal'],
  ];
  for (const [path, init, status, code, headers = {}] of cases) {
    const how = `${init.method ?? 'GET'} ${path.slice(0, 40)}${init.headers ? '' : ' without a key'}`;
    it(`answers ${how} with ${status} ${code}`, async () => {
      const answer = await fetch(at.gateway.url + path, init);
      const body = (await answer.json()) as { error: { code: string; message: string } };
      expect(answer.status, JSON.stringify(body)).to.equal(status);
      expect(answer.headers.get('content-type')).to.equal('application/json; charset=utf-8');
      expect(errorBody(body)).to.equal(undefined);
      expect(body.error.code).to.equal(code);
      expect(JSON.stringify(body)).not.to.match(/secret/);
      for (const [name, value] of Object.entries(headers)) expect(answer.headers.get(name), name).to.equal(value);
    });
  }

  /** Sends bytes as they are; gives the status and the body. */
  async function raw(request: string): Promise<[number, string]> {
    const { hostname, port } = new URL(at.gateway.url);
    const socket = connect(Number(port), hostname);
    socket.write(request);
    const answer = await text(socket);
    return [Number(answer.split(' ')[1]), answer.slice(answer.indexOf('\r\n\r\n') + 4)];
  }

  it('answers what is no HTTP, and handshakes that are none, in the same form', async () => {
    const upgrade = 'GET /v2/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n';
    for (const request of [
      'nonsense\r\n\r\n',
      `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
      `${upgrade}\r\n`,
      `${upgrade}Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
      `${upgrade.replace('GET', 'POST')}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
    ]) {
      const [status, body] = await raw(request);
      expect(status, request.slice(0, 200)).to.equal(400);
      expect(errorBody(JSON.parse(body) as object)).to.equal(undefined);
      expect(body).to.include('bad_request');
    }
  });

  it('serves a request that offers another protocol, as HTTP/2 clients do, as if it had not', async () => {
    const offer = (path: string): string =>
      `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n`;
    expect(await raw(offer('/v2/rows/a.b/1'))).to.deep.equal([200, '{}']);
    expect((await raw(offer('/v2/nothing')))[0]).to.equal(404);
    expect((await raw(offer('/v2/realtime')))[0]).to.equal(426);
  });
});

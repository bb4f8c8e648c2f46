import { channelsOf, type Catalog } from '../schemas/catalog.ts';
import type { Output } from './output.ts';
import type { RunFile } from './run-file.ts';

/** What `up` says when it is ready: where to look, and a line to paste. */
export function banner(out: Output, run: RunFile, { admin, catalog, demo }: { admin: string; catalog: Catalog; demo: boolean }): string {
  const { bold, dim, green, cyan } = out.colors;
  const channels = [...channelsOf(catalog).keys()];
  const channel = channels.includes('prices') ? 'prices' : (channels.find((name) => name !== 'alerts') ?? '<schema>.<table>');
  const socket = `${run.gateway.replace(/^http/, 'ws')}/v2/realtime`;
  const subscribe = JSON.stringify({ type: 'subscribe', id: 1, sub: 'live', channel });
  return [
    '',
    `${green('●')} ${bold('Headwater is up')}${demo ? dim('  with the demo market') : ''}`,
    '',
    `  gateway     ${cyan(socket)}`,
    `  key         ${run.key}`,
    `  database    ${run.databaseUrl}`,
    `  metrics     ${admin}/metrics`,
    `  channels    ${channels.length > 0 ? channels.join(' ') : 'one a table: <schema>.<table>'}`,
    '',
    `  Live events on a WebSocket, in another terminal:`,
    '',
    `    npx wscat -c ${socket} -H "Authorization: Bearer ${run.key}" -w 3600 -x '${subscribe}'`,
    '',
    `  Or: ${bold('npx headwater tail')}   ${dim('the log')}    ${bold('npx headwater status')}   ${dim('how it is doing')}    ${dim('Ctrl-C stops everything')}`,
    '',
    '',
  ].join('\n');
}

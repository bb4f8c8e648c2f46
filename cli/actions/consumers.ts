import { join, resolve } from 'node:path';
import { changeTeamUsers, localTeamUsers, reloadNats } from '../../deploy/local/teams.ts';
import { loadSecrets, secretsExist } from '../../deploy/local/secrets.ts';
import { connectNats, jetstreamManager, whenServed, type JetStreamManager } from '../../pipeline/clients/nats.ts';
import {
  addTeamConsumer,
  listTeamConsumers,
  removeTeamConsumer,
  requireFree,
  withMarks,
  type TeamConsumer,
} from '../../pipeline/consumers/team-consumers.ts';
import { isTeamName, teamEnvironment, teamPassword, teamUser, type TeamUser } from '../../pipeline/consumers/team-user.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { findTable, notHeldText } from '../../pipeline/log/log-tables.ts';
import type { RowOp } from '../../pipeline/replay/row-ops.ts';
import { resolveRange, type RangeRequest } from '../../pipeline/replay/range.ts';
import { backoffMs, pause } from '../../pipeline/runtime/backoff.ts';
import { HeadwaterError, messageOf, usage } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { tableToken } from '../../schemas/subjects.ts';
import { configOf, type Cli } from '../cli.ts';
import { confirm } from '../confirm.ts';
import { locate, withNats, type Located } from '../connections.ts';
import { table } from '../table.ts';

interface Common {
  readonly data?: string;
  readonly json?: boolean;
}

interface AddOptions extends Common {
  readonly tables?: readonly string[];
  readonly ops?: readonly RowOp[];
  readonly subjects?: readonly string[];
  readonly from?: 'oldest' | number;
  readonly since?: number;
  readonly new?: boolean;
  readonly ackWait?: number;
}

type Target = Located<'natsUrl'>;

const defaultAckWaitMs = 60_000;

/** How long a server may take to know a new user. */
const reloadMs = 30_000;

/** Makes a place in the log, and a user, and prints what the team’s program needs. */
export async function add(cli: Cli, name: string, options: AddOptions): Promise<void> {
  const given = configOf(cli, { data: options.data });
  const faults = faultsOf(name, options, given.subject);
  if (faults.length > 0) throw usage('bad_arguments', faults.join('\n'), '`headwater consumers add --help` shows what it takes');
  const config = await locate(given, 'natsUrl');
  const user: TeamUser = { name, password: teamPassword(), stream: config.stream };
  await onLog(config, async (jsm, eventLog) => {
    await requireFree(jsm, config.stream, name);
    const wanted = await subjectsOf(options, eventLog, config.subject);
    const subjects = withMarks(config.subject, wanted.subjects);
    const { first } = options.new
      ? { first: (await eventLog.bounds()).last + 1 }
      : await resolveRange(eventLog, beginOf(options), cli.signal);
    // The user first: without a consumer it may do nothing, and another attempt replaces it.
    const directory = localServer(config);
    if (directory !== undefined) await changeTeamUsers(directory, (users) => [...users.filter((other) => other.name !== name), user]);
    await addTeamConsumer(jsm, { stream: config.stream, name, subjects, from: first, ackWaitMs: options.ackWait ?? defaultAckWaitMs });
    try {
      if (directory !== undefined) {
        await takeUp(cli, directory, teamEnvironment(user, config.natsUrl)['NATS_URL']!);
        // Its program may begin at once.
        await whenServed(() => jsm.consumers.info(config.stream, name));
      }
    } finally {
      // Also when the server has still to read it: nobody can say the password later.
      await tell(cli, { user, subjects, from: first, local: directory !== undefined, doubts: wanted.doubts }, config, options);
    }
  });
}

interface Added {
  readonly user: TeamUser;
  readonly subjects: readonly string[];
  readonly from: number;
  readonly local: boolean;
  /** Of what it was given the log holds nothing: a sentence each. */
  readonly doubts: readonly string[];
}

async function tell(cli: Cli, { user, subjects, from, local, doubts }: Added, config: Target, { json }: AddOptions): Promise<void> {
  for (const doubt of doubts) await cli.err.line(`${doubt} ${user.name} gets them when there are any.`);
  const environment = teamEnvironment(user, config.natsUrl);
  const configuration = local ? {} : { configuration: teamUser(user) };
  if (json) return cli.out.line(JSON.stringify({ team: user.name, subjects, from, environment, ...configuration }));
  const begins = `${user.name} reads ${subjects.join(', ')} from sequence ${from} on.`;
  await cli.err.line(`${begins} Its password is not shown again; docs/consuming.md shows how to read.`);
  if (!local) {
    await cli.err.line(
      'This NATS server is not one that Headwater has started. Add this user to the list in its teams.conf (docs/consuming.md, “A server of your own”), then let it read its configuration again: nats-server --signal reload\n',
    );
    await cli.err.line(teamUser(user));
  }
  await cli.out.write(
    Object.entries(environment)
      .map(([variable, value]) => `${variable}=${value}\n`)
      .join(''),
  );
}

function faultsOf(name: string, options: AddOptions, root: string): readonly string[] {
  const faults: string[] = [];
  if (!isTeamName(name))
    faults.push(
      `'${name}' cannot be a team's name: it takes small letters, digits, - and _, at most 40, and is none of Headwater's own users`,
    );
  if (options.subjects && (options.tables ?? options.ops)) faults.push('give --subjects, or --tables and --ops, not both');
  if ([options.from, options.since, options.new].filter((value) => value !== undefined).length > 1)
    faults.push('give one of --from, --since and --new, not several');
  for (const subject of options.subjects ?? [])
    if (!isFilterBelow(subject, root)) faults.push(`--subjects '${subject}' is not a subject of the log, which begin with ${root}.`);
  return faults;
}

function isFilterBelow(subject: string, root: string): boolean {
  const [first, ...rest] = subject.split('.');
  return (
    first === root && rest.length > 0 && rest.every((token, i) => /^[^\s*>]+$|^\*$/.test(token) || (token === '>' && i === rest.length - 1))
  );
}

/** The filters of a team, and what of them the log holds nothing of. Of tables and subjects to come that is as it should be, of typing errors it is not. */
async function subjectsOf(
  { tables, ops: operations, subjects }: AddOptions,
  log: JetStreamLog,
  root: string,
): Promise<{ readonly subjects: readonly string[]; readonly doubts: readonly string[] }> {
  if (subjects) {
    const held = await Promise.all(subjects.map((subject) => log.last(subject)));
    const doubts = [...new Set(subjects.filter((_, i) => !held[i]).map((subject) => `The log holds no events on ${subject} yet.`))];
    return { subjects, doubts };
  }
  if (!tables && !operations) return { subjects: [`${root}.>`], doubts: [] };
  const found = await Promise.all(tables?.map((name) => findTable(log, root, name)) ?? []);
  const tokens = tables ? found.flatMap((one) => one.tables.map(({ schema, table: name }) => tableToken(schema, name))) : ['*.*'];
  return {
    subjects: tokens.flatMap((token) => (operations ?? ['*']).map((op) => `${root}.${token}.${op}`)),
    doubts: await Promise.all(found.filter(({ held }) => !held).map(({ name }) => notHeldText(log, root, name))),
  };
}

function beginOf({ from, since }: AddOptions): RangeRequest {
  if (since !== undefined) return { from: { since } };
  return { from: from === undefined || from === 'oldest' ? 'oldest' : { seq: from } };
}

/** Prints the teams. */
export async function list(cli: Cli, options: Common): Promise<void> {
  const config = await locate(configOf(cli, { data: options.data }), 'natsUrl');
  const found = await onLog(config, async (jsm, eventLog) => listTeamConsumers(jsm, config.stream, await eventLog.bounds()));
  if (options.json) return cli.out.line(JSON.stringify(found));
  if (found.length === 0) return cli.out.line('No team reads the log. `headwater consumers add <team>` adds one.');
  const head = ['TEAM', 'SUBJECTS', 'ACKNOWLEDGED', 'TO COME', 'UNACKNOWLEDGED', 'LAST ACTIVE', 'STATE'];
  await cli.out.line(table(cli.out, head, found.map(rowOf)));
}

function rowOf(team: TeamConsumer): readonly string[] {
  const { name, subjects, acknowledged, pending, unacknowledged, lastActive } = team;
  const state = team.trimmed
    ? 'the log no longer holds what it has not acknowledged'
    : pending + unacknowledged === 0
      ? 'has everything'
      : '';
  return [
    name,
    subjects.join(' '),
    String(acknowledged),
    String(pending),
    String(unacknowledged),
    lastActive?.slice(0, 19) ?? 'never',
    state,
  ];
}

/** Removes a place in the log, and its user. */
export async function remove(cli: Cli, name: string, { yes, data }: Common & { readonly yes?: boolean }): Promise<void> {
  const config = await locate(configOf(cli, { data }), 'natsUrl');
  await confirm(cli, yes, `The place of ${name} in the log is forgotten. Remove it?`);
  await onLog(config, async (jsm) => {
    const removed = await removeTeamConsumer(jsm, config.stream, name);
    const directory = localServer(config);
    const users = directory === undefined ? [] : localTeamUsers(directory);
    const known = users.some((user) => user.name === name);
    if (!removed && !known) throw usage('unknown_team', `there is no team ${name}`, '`headwater consumers list` shows those there are');
    if (directory !== undefined && known) {
      await changeTeamUsers(directory, (all) => all.filter((user) => user.name !== name));
      await reloadNats(directory);
    }
    await cli.out.line(
      `Removed: ${name}.${directory === undefined ? ' Remove its user from the server’s teams.conf too, and let it reload.' : ''}`,
    );
  });
}

/** The directory of the NATS server when it is one that `up` has started on this data, whose users we keep. */
function localServer({ natsUrl, data }: Target): string | undefined {
  const { username, password } = new URL(natsUrl);
  if (!secretsExist(data)) return undefined;
  return username === 'operator' && password === loadSecrets(data).nats.operator ? join(resolve(data), 'nats') : undefined;
}

/** Lets the server read its users again, and waits until it lets the new one in. */
async function takeUp(cli: Cli, directory: string, url: string): Promise<void> {
  const until = performance.now() + reloadMs;
  if (!(await reloadNats(directory)))
    throw new HeadwaterError('not_reloaded', `no process of the NATS server in ${directory} is found`, {
      hint: 'it takes the new user at its next start; if it runs, let it reload: kill -HUP <pid of nats-server>',
    });
  for (let attempt = 1; ; attempt++) {
    try {
      await (await connectNats(url, 'consumers', silentLogger())).close();
      return;
    } catch (error) {
      if (performance.now() > until)
        throw new HeadwaterError('not_reloaded', `the NATS server does not take the new user: ${messageOf(error)}`, {
          hint: `its log says why: ${join(directory, '..', 'logs', 'nats.log')}`,
          cause: error,
        });
      await pause(backoffMs(attempt, { baseMs: 50, capMs: 500 }), cli.signal);
      cli.signal.throwIfAborted();
    }
  }
}

async function onLog<T>(config: Target, work: (jsm: JetStreamManager, eventLog: JetStreamLog) => Promise<T>): Promise<T> {
  const log = silentLogger();
  return withNats(config, log, async (connection) => {
    // Another command may just have had the server read its users anew.
    const eventLog = await whenServed(() => JetStreamLog.open(connection, config, log));
    try {
      return await work(await jetstreamManager(connection, { timeout: 10_000 }), eventLog);
    } finally {
      eventLog.close();
    }
  });
}

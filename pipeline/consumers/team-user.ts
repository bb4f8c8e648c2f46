import { randomBytes } from 'node:crypto';

/** A team's user on the NATS server: its consumer and its inbox have the same name. */
export interface TeamUser {
  readonly name: string;
  readonly password: string;
  /** The log's stream. */
  readonly stream: string;
}

/** Users that nats.conf has already. */
const taken: ReadonlySet<string> = new Set(['operator', 'capture', 'processor', 'gateway', 'headwater']);

/** Is this a team's name? It becomes a NATS user, a consumer and a part of subjects. */
export function isTeamName(name: string): boolean {
  return /^[a-z][a-z0-9_-]{0,39}$/.test(name) && !taken.has(name);
}

/** Letters and digits, beginning with letters: the server would take some other words for numbers or sizes. */
export function teamPassword(): string {
  return `hw${randomBytes(16).toString('hex')}`;
}

/** What answers to this user come to. */
function inboxPrefix({ name }: Pick<TeamUser, 'name'>): string {
  return `_INBOX_${name}`;
}

/** The only subjects that a team may publish to: those of its own consumer. */
function teamSubjects({ name, stream }: Pick<TeamUser, 'name' | 'stream'>): readonly string[] {
  return [
    `$JS.API.CONSUMER.INFO.${stream}.${name}`,
    `$JS.API.CONSUMER.RESET.${stream}.${name}`,
    `$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`,
    `$JS.ACK.${stream}.${name}.>`,
  ];
}

/** The user as an entry of the list in teams.conf. */
export function teamUser(user: TeamUser): string {
  const subjects = teamSubjects(user).map((subject) => `      "${subject}"\n`);
  return `  {
    user: "${user.name}"
    password: "${user.password}"
    permissions {
      publish { allow: [
${subjects.join('')}      ] }
      subscribe { allow: ["${inboxPrefix(user)}.>"] }
    }
  }
`;
}

/** What a team's program needs, as variables of its environment. */
export function teamEnvironment(user: TeamUser, serverUrl: string): Readonly<Record<string, string>> {
  const url = new URL(serverUrl);
  url.username = user.name;
  url.password = user.password;
  return {
    NATS_URL: url.toString(),
    NATS_STREAM: user.stream,
    NATS_CONSUMER: user.name,
    NATS_INBOX_PREFIX: inboxPrefix(user),
  };
}

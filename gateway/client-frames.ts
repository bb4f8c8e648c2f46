import type { Seq } from '../pipeline/log/event-log.ts';

/** The client's own number or name of a command, echoed in the answer. */
export type FrameId = string | number;

/** How a client says who it is. */
export type Credential = { readonly kind: 'apiKey'; readonly apiKey: string } | { readonly kind: 'unsupported' };

/** Where a subscription begins. */
export type From =
  | { readonly kind: 'now' }
  | { readonly kind: 'seq'; readonly seq: Seq }
  | { readonly kind: 'after'; readonly after: Seq }
  | { readonly kind: 'time'; readonly ms: number }
  | { readonly kind: 'last'; readonly count: number }
  | { readonly kind: 'token'; readonly token: string; readonly after: Seq | undefined };

interface Command<Type extends string> {
  readonly type: Type;
  readonly id?: FrameId;
}

export type ConnectFrame = Command<'connect'> & { readonly credential: Credential };
export type AuthFrame = Command<'auth'> & { readonly credential: Credential };
export type SubscribeFrame = Command<'subscribe'> & {
  readonly sub: string;
  readonly channel: string;
  /** As it came: it is judged against the channel. */
  readonly filter: unknown;
  readonly from: From;
  readonly snapshot: boolean;
  readonly mode: 'all' | 'latest';
};
export type UnsubscribeFrame = Command<'unsubscribe'> & { readonly sub: string };
export type PingFrame = Command<'ping'>;
/** What could not be understood, and why. */
export type MalformedFrame = Command<'malformed'> & { readonly message: string };

export type ClientFrame = ConnectFrame | AuthFrame | SubscribeFrame | UnsubscribeFrame | PingFrame | MalformedFrame;

type Body = Readonly<Record<string, unknown>>;

const nameLength = 256;
const apiKeyLength = 1024;
/** The most that `{last: n}` may ask for. */
const maxLast = 10_000;

/** Reads a text frame. It never throws: what is wrong becomes a `malformed` frame. */
export function parseClientFrame(text: string): ClientFrame {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { type: 'malformed', message: 'the frame is not JSON' };
  }
  if (!isObject(value)) return { type: 'malformed', message: 'the frame is not a JSON object' };
  const id = value['id'];
  if (id !== undefined && !isId(id))
    return { type: 'malformed', message: `id must be a number, or text of at most ${nameLength} characters` };
  const command = id === undefined ? {} : { id };
  const parsed = parseCommand(value);
  return typeof parsed === 'string' ? { type: 'malformed', ...command, message: parsed } : { ...parsed, ...command };
}

/** The command without its id, or what is wrong with it. */
function parseCommand(body: Body): ClientFrame | string {
  switch (body['type']) {
    case 'connect':
    case 'auth': {
      const credential = parseCredential(body['auth']);
      return typeof credential === 'string' ? credential : { type: body['type'], credential };
    }
    case 'subscribe':
      return parseSubscribe(body);
    case 'unsubscribe':
      return isName(body['sub']) ? { type: 'unsubscribe', sub: body['sub'] } : 'sub must be the name of a subscription';
    case 'ping':
      return { type: 'ping' };
    case undefined:
      return 'the frame has no type';
    default:
      return 'the type of the frame is unknown: connect, subscribe, unsubscribe, auth and ping are known';
  }
}

function parseCredential(auth: unknown): Credential | string {
  if (!isObject(auth)) return 'auth must be an object like {"apiKey": "…"}';
  const apiKey = auth['apiKey'];
  if (typeof apiKey === 'string' && apiKey.length > 0 && apiKey.length <= apiKeyLength) return { kind: 'apiKey', apiKey };
  if (apiKey !== undefined) return 'auth.apiKey must be text';
  return { kind: 'unsupported' };
}

function parseSubscribe(body: Body): ClientFrame | string {
  const { sub, channel, filter, mode = 'all', snapshot = false } = body;
  if (!isName(sub)) return `sub must be text of 1 to ${nameLength} characters: your own name for the subscription`;
  if (!isName(channel)) return 'channel must be the name of a channel';
  if (mode !== 'all' && mode !== 'latest') return 'mode must be "all" or "latest"';
  if (typeof snapshot !== 'boolean') return 'snapshot must be true or false';
  const from = parseFrom(body['from']);
  if (typeof from === 'string') return from;
  if (snapshot && from.kind !== 'now') return 'snapshot starts from the current rows: it goes with no other from than "now"';
  return { type: 'subscribe', sub, channel, filter, from, snapshot, mode };
}

/** Reads `from`, or says what is wrong with it. */
function parseFrom(from: unknown): From | string {
  if (from === undefined || from === 'now') return { kind: 'now' };
  if (!isObject(from)) return 'from must be "now" or an object';
  const forms = ['seq', 'time', 'last', 'token'].filter((form) => from[form] !== undefined);
  if (forms.length > 1 || (from['after'] !== undefined && forms.length === 1 && forms[0] !== 'token'))
    return 'from must have one of seq, after, time, last and token';
  const { seq, after, time, last, token } = from;
  if (after !== undefined && !isCount(after, 0)) return 'from.after must be a whole number from 0';
  if (token !== undefined) return typeof token === 'string' ? { kind: 'token', token, after } : 'from.token must be text';
  if (after !== undefined) return { kind: 'after', after };
  if (seq !== undefined) return isCount(seq, 0) ? { kind: 'seq', seq: Math.max(1, seq) } : 'from.seq must be a whole number from 0';
  if (last !== undefined)
    return isCount(last, 1) && last <= maxLast ? { kind: 'last', count: last } : `from.last must be a whole number from 1 to ${maxLast}`;
  if (time !== undefined) return parseTime(time);
  return 'from must have one of seq, after, time, last and token';
}

/** RFC 3339 with an offset or `Z`: a time without one would mean something else on each machine. */
function parseTime(time: unknown): From | string {
  const wellFormed = typeof time === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/i.test(time);
  const ms = wellFormed ? Date.parse(time) : NaN;
  return Number.isNaN(ms) ? 'from.time must be a time like 2026-01-31T12:00:00Z' : { kind: 'time', ms };
}

export function isObject(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= nameLength;
}

function isId(value: unknown): value is FrameId {
  return typeof value === 'string' ? value.length <= nameLength : Number.isFinite(value);
}

function isCount(value: unknown, least: number): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= least;
}

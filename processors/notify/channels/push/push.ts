import { createHash } from 'node:crypto';
import type { Attempt, Channel, Notice, Target } from '../../channel.ts';
import { withDeadline } from '../../../../pipeline/runtime/tasks.ts';
import { cleanAnswer, noAnswer, retry } from '../answer.ts';
import { guardedAgents, type GuardedAgents } from '../guard/connect.ts';
import { judgeUrl, type UrlRules } from '../guard/url.ts';
import { post, type HttpAnswer } from '../http-post.ts';
import { messageOfNotice, type Message } from '../templates/message.ts';
import { pushBody } from '../templates/push.ts';
import type { Wording } from '../templates/wording.ts';
import { encryptPush, judgePushKeys, maxPushText } from './encrypt.ts';
import { vapidHeader, type Vapid } from './vapid.ts';

export interface PushOptions {
  readonly vapid: Vapid;
  readonly rules: UrlRules;
  readonly wording: Wording;
  readonly userAgent: string;
  /** ms for the whole delivery. Default 10 s. */
  readonly timeoutMs?: number;
  /** Default: agents of its own, closed with the channel. */
  readonly agents?: GuardedAgents;
  /** ms since 1970. */
  readonly now?: () => number;
}

type PushTarget = Extract<Target, { channel: 'push' }>;
type Parts = PushOptions & { readonly agents: GuardedAgents };

/** How long a push service keeps a message for a device that is away: as long as other channels are tried. */
const ttlSeconds = 86_400;

/** What fits where a service takes less than the standard asks it to. */
const shortText = 1_024;

const urgencies: Readonly<Record<Message['kind'], string>> = {
  critical: 'high',
  warning: 'normal',
  info: 'low',
  resolved: 'low',
  digest: 'normal',
};

/**
 * Web Push (RFC 8030) with VAPID (RFC 8292), encrypted for the device (RFC 8291). 404 and 410: the subscription has ended. What is said
 * about one alert has one topic, so a device that was away gets the last of it only.
 */
export function pushChannel(options: PushOptions): Channel {
  const agents = options.agents ?? guardedAgents(options.rules);
  return {
    async deliver(notice, target, signal) {
      if (target.channel !== 'push') return { outcome: 'failed', answer: `not a device: ${target.channel}` };
      return deliver(notice, target, signal, { ...options, agents });
    },
    close: () => Promise.resolve(agents.close()),
  };
}

async function deliver(notice: Notice, target: PushTarget, signal: AbortSignal, parts: Parts): Promise<Attempt> {
  const now = parts.now ?? Date.now;
  const { url, fault } = judgeUrl(target.endpoint, parts.rules);
  if (fault !== undefined) return { outcome: 'failed', answer: cleanAnswer(`the endpoint ${fault}`) };
  const keys = judgePushKeys(target);
  if (keys) return { outcome: 'failed', answer: `the device’s ${keys.field} ${keys.fault}` };
  const send = (size: number, limit: AbortSignal): Promise<HttpAnswer> =>
    post(parts.agents, exchange(notice, url, target, size, parts, now()), limit);
  try {
    return await withDeadline(parts.timeoutMs ?? 10_000, signal, async (limit) => {
      const first = await send(maxPushText, limit);
      return judged(first.status === 413 ? await send(shortText, limit) : first, target, now());
    });
  } catch (error) {
    return noAnswer(error);
  }
}

function exchange(
  notice: Notice,
  url: URL,
  target: PushTarget,
  size: number,
  { vapid, wording, userAgent }: Parts,
  now: number,
): Parameters<typeof post>[1] {
  const message = messageOfNotice(notice, wording);
  const topic = topicOf(notice);
  return {
    url,
    body: encryptPush(pushBody(notice, message, topic, size), target),
    headers: {
      authorization: vapidHeader(vapid, url, now),
      'content-encoding': 'aes128gcm',
      'content-type': 'application/octet-stream',
      ttl: String(ttlSeconds),
      urgency: urgencies[message.kind],
      topic,
      'user-agent': userAgent,
    },
  };
}

/** 32 characters of base64url at most (RFC 8030 §5.4); they tell a push service nothing. */
function topicOf({ id, data }: Notice): string {
  const about = 'alert' in data ? data.alert.id : id;
  return createHash('sha256').update(about).digest('base64url').slice(0, 32);
}

function judged(answer: HttpAnswer, target: PushTarget, now: number): Attempt {
  const { status, body } = answer;
  const text = cleanAnswer(body.toString('utf8'), [
    target.endpoint,
    ...new URL(target.endpoint).pathname.split('/').filter((part) => part.length >= 16),
  ]);
  if (status >= 200 && status < 300) return { outcome: 'delivered', status, answer: text };
  if (status === 404 || status === 410) return { outcome: 'gone', status, answer: text };
  if (status === 413) return { outcome: 'failed', status, answer: text };
  return retry(answer, text, now);
}

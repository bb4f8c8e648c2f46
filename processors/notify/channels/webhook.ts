import type { Attempt, Channel, Notice, Target } from '../channel.ts';
import { withDeadline } from '../../../pipeline/runtime/tasks.ts';
import { cleanAnswer, noAnswer, retry } from './answer.ts';
import { guardedAgents, type GuardedAgents } from './guard/connect.ts';
import { judgeUrl, type UrlRules } from './guard/url.ts';
import { post, type HttpAnswer } from './http-post.ts';
import { signedHeaders } from './signature.ts';

export interface WebhookOptions {
  readonly rules: UrlRules;
  readonly userAgent: string;
  /** ms for one exchange, from resolving the name to the end of the answer. Default 10 s. */
  readonly timeoutMs?: number;
  /** Default: agents of its own, closed with the channel. */
  readonly agents?: GuardedAgents;
  /** ms since 1970. */
  readonly now?: () => number;
}

/**
 * Webhooks after Standard Webhooks: the notice without its id as the body, the id as `webhook-id`, signed with each of the target's
 * secrets. 2xx has delivered it, 410 wants no more, anything else (redirects too, which are not followed) is tried again.
 */
export function webhookChannel(options: WebhookOptions): Channel {
  const agents = options.agents ?? guardedAgents(options.rules);
  return {
    async deliver(notice, target, signal) {
      if (target.channel !== 'webhook') return { outcome: 'failed', answer: `not a webhook: ${target.channel}` };
      return deliver(notice, target, signal, { ...options, agents });
    },
    close: () => Promise.resolve(agents.close()),
  };
}

type WebhookTarget = Extract<Target, { channel: 'webhook' }>;
type Parts = WebhookOptions & { readonly agents: GuardedAgents };

async function deliver(notice: Notice, target: WebhookTarget, signal: AbortSignal, parts: Parts): Promise<Attempt> {
  const now = parts.now ?? Date.now;
  const { url, fault } = judgeUrl(target.url, parts.rules);
  if (fault !== undefined) return { outcome: 'failed', answer: cleanAnswer(`the URL ${fault}`) };
  const body = Buffer.from(JSON.stringify({ type: notice.type, timestamp: notice.timestamp, data: notice.data }));
  const signed = signedHeaders(notice.id, Math.floor(now() / 1_000), body, target.secrets);
  if (!signed) return { outcome: 'failed', answer: 'a secret of this webhook is not whsec_<base64>; set another one in the rule' };
  const headers = { ...signed, 'content-type': 'application/json', 'user-agent': parts.userAgent };
  try {
    const answer = await withDeadline(parts.timeoutMs ?? 10_000, signal, (limit) => post(parts.agents, { url, headers, body }, limit));
    return judged(answer, secretsIn(target, url), now());
  } catch (error) {
    return noAnswer(error);
  }
}

function judged(answer: HttpAnswer, secrets: readonly string[], now: number): Attempt {
  const { status, body } = answer;
  const text = cleanAnswer(body.toString('utf8'), secrets);
  if (status >= 200 && status < 300) return { outcome: 'delivered', status, answer: text };
  if (status === 410) return { outcome: 'gone', status, answer: text };
  if (status >= 300 && status < 400)
    return retry(answer, 'the receiver redirects, and redirects are not followed: give its final URL', now);
  return retry(answer, text, now);
}

/** What a careless receiver could repeat in its answer: secrets, and the parts of the URL that often are one. */
function secretsIn({ secrets }: WebhookTarget, url: URL): string[] {
  const parts = [...url.pathname.split('/'), ...url.searchParams.values()].filter((part) => part.length >= 16);
  return [...secrets, ...secrets.map((secret) => secret.replace(/^whsec_/, '')), ...parts];
}

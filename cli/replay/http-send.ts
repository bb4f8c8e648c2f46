import type { SendBatch, Sent } from '../../pipeline/replay/http-target.ts';
import { usage } from '../../pipeline/runtime/errors.ts';
import { withDeadline } from '../../pipeline/runtime/tasks.ts';
import { cleanAnswer, noAnswer, retry } from '../../processors/notify/channels/answer.ts';
import { guardedAgents } from '../../processors/notify/channels/guard/connect.ts';
import { judgeUrl } from '../../processors/notify/channels/guard/url.ts';
import { post, type HttpAnswer } from '../../processors/notify/channels/http-post.ts';
import { secretKey } from '../../processors/notify/channels/secret.ts';
import { signedHeaders } from '../../processors/notify/channels/signature.ts';

/** An operator names the receiver, so it may be on a network of their own; what is nobody's receiver stays refused. */
const rules = { allowPrivate: true };
/** A receiver that has not answered by then will hardly do it. */
const timeoutMs = 30_000;

/** Sends batches, until it is closed. */
export interface HttpSender {
  readonly send: SendBatch;
  close(): void;
}

/**
 * Sends batches as webhooks are sent: signed after Standard Webhooks with each of the secrets, the id also as `idempotency-key`.
 * @throws HeadwaterError `bad_url`, `bad_secret` (usage)
 */
export function httpSender(target: string, secrets: readonly string[]): HttpSender {
  const { url, fault } = judgeUrl(target, rules);
  if (fault !== undefined) throw usage('bad_url', `--to-url ${fault}`, 'give the URL of the receiver itself');
  if (!secrets.every((secret) => secretKey(secret)))
    throw usage('bad_secret', 'a line of the secret file is no webhook secret', 'a line each: whsec_ followed by 24 to 64 bytes in base64');
  const agents = guardedAgents(rules);
  // A receiver may repeat what it was asked for.
  const secret = url.search.length > 1 ? [...secrets, url.search] : secrets;
  const send: SendBatch = async ({ id, body }, patienceMs, signal) => {
    const signed = signedHeaders(id, Math.floor(Date.now() / 1_000), body, secrets);
    const headers = { ...signed, 'idempotency-key': id, 'content-type': 'application/json', 'user-agent': 'Headwater replay' };
    try {
      return judged(
        await withDeadline(Math.min(timeoutMs, patienceMs), signal, (limit) => post(agents, { url, headers, body }, limit)),
        secret,
      );
    } catch (error) {
      return { ...sent(noAnswer(error)), answered: false };
    }
  };
  return { send, close: () => agents.close() };
}

/** Too early, too many, or a fault of the receiver's own: later it may take the batch. Anything else it will not take later either. */
function judged(answer: HttpAnswer, secrets: readonly string[]): Sent {
  const { status, body } = answer;
  const text = cleanAnswer(body.toString('utf8'), secrets);
  if (status >= 200 && status < 300) return { outcome: 'delivered', answer: text, answered: true };
  const said = `${status}${text === '' ? '' : ` ${text}`}`;
  if (status >= 500 || [408, 425, 429].includes(status)) return sent(retry(answer, said, Date.now()));
  return { outcome: 'failed', answer: status >= 300 && status < 400 ? `${said}: redirects are not followed` : said, answered: true };
}

function sent({ outcome, answer, retryAfterMs }: ReturnType<typeof retry>): Sent {
  const after = retryAfterMs === undefined ? {} : { retryAfterMs };
  return { outcome: outcome === 'retry' ? 'retry' : 'failed', answer: answer ?? '', answered: true, ...after };
}

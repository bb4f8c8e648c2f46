import { pause } from '../../pipeline/runtime/backoff.ts';
import { HeadwaterError, messageOf, usage } from '../../pipeline/runtime/errors.ts';
import type { RuleResource } from '../../schemas/generated/rule.ts';
import type { ErrorBody } from '../../schemas/generated/rest.ts';
import type { RuleDocument } from '../../schemas/rule.ts';

/** A gateway, and the key to use there. */
export interface Target {
  readonly gateway: string;
  readonly key: string;
}

/** Something wrong with a rule, in the words of the gateway; the message is a sentence that begins with the field's name. */
export interface RuleFault {
  readonly field: string;
  readonly message: string;
}

const timeoutMs = 30_000;
/** How often a request is sent while the gateway says that it will do later, and the longest pause in between. */
const [attempts, longestPauseMs] = [5, 5_000];

/** `/v2/alert-rules` of a running gateway, as the owner of a key sees it. */
export class RulesClient {
  readonly #target: Target;
  readonly #signal: AbortSignal;

  constructor(target: Target, signal: AbortSignal) {
    this.#target = target;
    this.#signal = signal;
  }

  /** Every rule of the key's owner, the oldest first. */
  async list(): Promise<readonly RuleResource[]> {
    const rules: RuleResource[] = [];
    let cursor: string | null = null;
    do {
      const page: string = cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const { items, next } = (await this.#ask('GET', `?limit=200${page}`)) as { items: RuleResource[]; next: string | null };
      rules.push(...items);
      cursor = next;
    } while (cursor !== null);
    return rules;
  }

  /** What is wrong with a rule; nothing when it could be stored. */
  async judge(rule: object): Promise<readonly RuleFault[]> {
    const { status, body } = await this.#send('POST', '/test', { rule, events: 0 });
    if (status === 400) return faultsOf(body).map(({ field, message }) => ({ field: field.replace(/^rule\./u, ''), message }));
    this.#expectDone(status, body);
    return [];
  }

  /** The rule as it is now, with secrets that were made for its webhooks. */
  async create(rule: RuleDocument): Promise<RuleResource> {
    return (await this.#ask('POST', '', rule)) as RuleResource;
  }

  /** @throws HeadwaterError `changed_meanwhile` when it is not `stored` any more */
  async replace(stored: RuleResource, rule: RuleDocument): Promise<RuleResource> {
    return (await this.#ask('PUT', `/${stored.id}`, rule, stored)) as RuleResource;
  }

  /** @throws HeadwaterError `changed_meanwhile` likewise */
  async remove(stored: RuleResource): Promise<void> {
    await this.#ask('DELETE', `/${stored.id}`, undefined, stored);
  }

  async #ask(method: string, path: string, body?: object, stored?: RuleResource): Promise<unknown> {
    const answer = await this.#send(method, path, body, stored);
    if (stored && (answer.status === 412 || answer.status === 404))
      throw new HeadwaterError('changed_meanwhile', `rule ${JSON.stringify(stored.name)} has just been changed by somebody else`, {
        hint: 'run this again: it takes up from what is there then',
      });
    this.#expectDone(answer.status, answer.body);
    return answer.body;
  }

  #expectDone(status: number, body: unknown): void {
    if (status >= 200 && status < 300) return;
    const message = faultsOf(body)
      .map(({ field, message: text }) => (field === 'rule' ? text : `${field} ${text}`))
      .join('\n');
    const said = message === '' ? `the gateway answers ${status}` : message;
    if (status === 401)
      throw usage(
        'unauthorized',
        `the gateway refuses the key: ${said}`,
        'check HEADWATER_KEY or --key; `headwater keys create <name> --scopes alerts` makes one',
      );
    if (status === 403) throw usage('forbidden', said, '`headwater keys create <name> --scopes alerts` makes a key that may');
    throw new HeadwaterError('gateway_failed', said, {
      hint: status === 404 ? 'is this the gateway’s address? It may be of an older version' : 'see the gateway’s log',
    });
  }

  async #send(method: string, path: string, body?: object, stored?: RuleResource): Promise<{ status: number; body: unknown }> {
    for (let attempt = 1; ; attempt++) {
      const response = await this.#fetch(method, path, body, stored);
      const later = response.status === 429 || response.status === 503;
      if (!later || attempt === attempts) return { status: response.status, body: await parsed(response) };
      await response.body?.cancel();
      const seconds = Number(response.headers.get('retry-after') ?? 1);
      await pause(Math.min(longestPauseMs, (Number.isFinite(seconds) ? seconds : 1) * 1_000), this.#signal);
      this.#signal.throwIfAborted();
    }
  }

  async #fetch(method: string, path: string, body?: object, stored?: RuleResource): Promise<Response> {
    const { gateway, key } = this.#target;
    try {
      return await fetch(`${gateway.replace(/\/+$/u, '')}/v2/alert-rules${path}`, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(body && { 'content-type': 'application/json' }),
          ...(stored && { 'if-match': `"${stored.revision}"` }),
        },
        ...(body && { body: JSON.stringify(body) }),
        // Wherever a redirect leads to, the key is not for there.
        redirect: 'error',
        signal: AbortSignal.any([this.#signal, AbortSignal.timeout(timeoutMs)]),
      });
    } catch (error) {
      this.#signal.throwIfAborted();
      const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
      throw new HeadwaterError('unreachable', `the gateway at ${gateway} does not answer: ${messageOf(cause)}`, {
        hint: 'is it running? --gateway or HEADWATER_GATEWAY names another',
      });
    }
  }
}

/** Undefined when the answer is no JSON. */
async function parsed(response: Response): Promise<unknown> {
  const text = await response.text();
  try {
    return text === '' ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** All that the body of an error names; nothing when it is no such body. */
function faultsOf(body: unknown): readonly RuleFault[] {
  const { error } = (body ?? {}) as Partial<ErrorBody>;
  if (error === undefined || typeof error.message !== 'string') return [];
  if (error.faults) return error.faults;
  const { field = 'rule', message } = error;
  return [{ field, message: message.startsWith(`${field} `) ? message.slice(field.length + 1) : message }];
}

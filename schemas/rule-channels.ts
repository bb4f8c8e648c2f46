import { isObject, show, type Fault } from './condition/faults.ts';
import { suggestion } from './nearest.ts';
import { judgeRecipient } from './recipient.ts';
import { judgeSecret } from './webhook-secret.ts';

/** Where a rule notifies, as a request has it. */
export type RuleChannel =
  | { readonly type: 'webhook'; readonly url: string; readonly secret?: string }
  | { readonly type: 'email'; readonly to: string }
  | { readonly type: 'push' };

/** Most channels of a rule; the longest address of a webhook. */
const limits = { channels: 10, url: 2_048 } as const;

const members: Readonly<Record<RuleChannel['type'], readonly string[]>> = {
  webhook: ['type', 'url', 'secret'],
  email: ['type', 'to'],
  push: ['type'],
};

/**
 * Checks the channels of a rule: their number and their syntax. Whether a webhook's host may be called is judged elsewhere.
 * Secrets are never repeated in a message.
 * @param faults gets all that is wrong
 */
export function checkChannels(input: unknown, faults: Fault[]): readonly RuleChannel[] {
  if (input === undefined || input === null) return [];
  if (!Array.isArray(input)) {
    faults.push({ field: 'channels', message: 'must be a list of {"type":"webhook","url"}, {"type":"email","to"}, {"type":"push"}' });
    return [];
  }
  if (input.length > limits.channels) {
    faults.push({ field: 'channels', message: `has more than the ${limits.channels} channels that are allowed` });
    return [];
  }
  const channels = (input as readonly unknown[]).map((channel, i) =>
    checkChannel(channel, (member, message) => faults.push({ field: `channels[${i}]${member}`, message })),
  );
  return channels.filter((channel) => channel !== undefined);
}

type Report = (member: string, message: string) => void;

function checkChannel(input: unknown, report: Report): RuleChannel | undefined {
  if (!isObject(input)) {
    report('', 'must be an object with a type');
    return undefined;
  }
  const types = Object.keys(members) as RuleChannel['type'][];
  const type = types.find((one) => one === input['type']);
  if (type === undefined) {
    const near = typeof input['type'] === 'string' ? suggestion(input['type'], types) : '';
    report('.type', `is ${show(input['type'])}, and must be one of ${types.join(', ')}${near}`);
    return undefined;
  }
  for (const member of Object.keys(input)) {
    if (!members[type].includes(member))
      report(`.${member}`, `is no member of a channel of type ${type}${suggestion(member, members[type])}`);
  }
  if (type === 'push') return { type };
  return type === 'email' ? checkEmail(input['to'], report) : checkWebhook(input['url'], input['secret'], report);
}

function checkWebhook(url: unknown, secret: unknown, report: Report): RuleChannel | undefined {
  const urlFault = judgeUrl(url);
  if (urlFault !== undefined) report('.url', urlFault);
  const secretFault = secret === undefined ? undefined : judgeSecret(typeof secret === 'string' ? secret : '');
  if (secretFault !== undefined) report('.secret', secretFault);
  if (urlFault !== undefined || secretFault !== undefined) return undefined;
  return { type: 'webhook', url: url as string, ...(secret !== undefined && { secret: secret as string }) };
}

function judgeUrl(url: unknown): string | undefined {
  if (url === undefined) return 'is missing: where to post to';
  if (typeof url !== 'string') return `is ${show(url)}, and must be a URL`;
  if (url.length > limits.url) return `is longer than the ${limits.url} characters that are allowed`;
  const parsed = /^https?:\/\/[^\s\\]+$/iu.test(url) && URL.canParse(url) ? new URL(url) : undefined;
  // Not repeated: it may hold what is secret.
  if (!parsed) return 'must be a URL like https://example.com/hook';
  return parsed.username !== '' || parsed.password !== '' ? 'must not have a user name or password in it' : undefined;
}

function checkEmail(to: unknown, report: Report): RuleChannel | undefined {
  const fault = judgeEmail(to);
  if (fault === undefined) return { type: 'email', to: to as string };
  report('.to', fault);
  return undefined;
}

function judgeEmail(to: unknown): string | undefined {
  if (to === undefined) return 'is missing: whom to write to';
  return typeof to === 'string' ? judgeRecipient(to) : `is ${show(to)}, and must be an email address`;
}

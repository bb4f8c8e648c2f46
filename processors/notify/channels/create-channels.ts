import type { Config } from '../../../pipeline/runtime/config.ts';
import type { Logger } from '../../../pipeline/runtime/logging.ts';
import type { Channel, Target } from '../channel.ts';
import { emailChannel } from './email.ts';
import { parseMailbox } from './mailbox.ts';
import { pushChannel } from './push/push.ts';
import { readVapid } from './push/vapid.ts';
import type { Wording } from './templates/wording.ts';
import { webhookChannel } from './webhook.ts';

/** The part of the configuration that the channels need. */
export type ChannelConfig = Pick<
  Config,
  'allowPrivateWebhooks' | 'smtpUrl' | 'mailFrom' | 'vapidPublicKey' | 'vapidPrivateKey' | 'vapidSubject' | 'link' | 'locale'
>;

/**
 * Every way to reach people. One that is not set up, or wrongly, fails each attempt with the name of the setting; what is set up
 * wrongly is said in the log too.
 * @param version for the user agent
 */
export function createChannels(config: ChannelConfig, log: Logger, version?: string): Readonly<Record<Target['channel'], Channel>> {
  const userAgent = version === undefined ? 'Headwater' : `Headwater/${version}`;
  const rules = { allowPrivate: config.allowPrivateWebhooks };
  const wording = { locale: config.locale, link: config.link };
  return {
    webhook: webhookChannel({ rules, userAgent }),
    email: createEmail(config, wording, log),
    push: createPush(config, wording, userAgent, log),
  };
}

function createEmail({ smtpUrl, mailFrom }: ChannelConfig, wording: Wording, log: Logger): Channel {
  if (smtpUrl === undefined) return unavailable('email is not set up: HEADWATER_SMTP_URL is not set');
  if (mailFrom === undefined) return misconfigured('email is not set up: HEADWATER_MAIL_FROM is not set', log);
  const from = parseMailbox(mailFrom);
  const wrong = 'email is not set up: HEADWATER_MAIL_FROM must be an address like alerts@example.com, or Name <alerts@example.com>';
  return from ? emailChannel({ smtpUrl, from, wording }) : misconfigured(wrong, log);
}

function createPush(config: ChannelConfig, wording: Wording, userAgent: string, log: Logger): Channel {
  const { vapidPublicKey, vapidPrivateKey, vapidSubject, mailFrom } = config;
  const names = 'HEADWATER_VAPID_PUBLIC_KEY and HEADWATER_VAPID_PRIVATE_KEY';
  if (vapidPublicKey === undefined && vapidPrivateKey === undefined) return unavailable(`push is not set up: ${names} are not set`);
  const sender = mailFrom === undefined ? undefined : parseMailbox(mailFrom)?.address;
  const subject = vapidSubject ?? (sender === undefined ? undefined : `mailto:${sender}`);
  const vapid = readVapid(vapidPublicKey ?? '', vapidPrivateKey ?? '', subject);
  if (!vapid) return misconfigured(`push is not set up: ${names} must be the two keys of one P-256 pair, in base64url`, log);
  return pushChannel({ vapid, rules: { allowPrivate: config.allowPrivateWebhooks }, wording, userAgent });
}

function misconfigured(fault: string, log: Logger): Channel {
  log.error(fault);
  return unavailable(fault);
}

/** A channel that nobody has set up: every attempt says what is missing. */
function unavailable(answer: string): Channel {
  return { deliver: () => Promise.resolve({ outcome: 'failed', answer }), close: () => Promise.resolve() };
}

import { createHash } from 'node:crypto';
import { createTransport, type NodemailerError, type SMTPPoolOptions } from 'nodemailer';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import type { Attempt, Channel, Notice } from '../channel.ts';
import { withDeadline } from '../../../pipeline/runtime/tasks.ts';
import { cleanAnswer } from './answer.ts';
import type { Mailbox } from './mailbox.ts';
import { judgeRecipient } from '../../../schemas/recipient.ts';
import { htmlOf } from './templates/html.ts';
import { messageOfNotice, type Message } from './templates/message.ts';
import { textOf } from './templates/text.ts';
import type { Wording } from './templates/wording.ts';

export interface EmailOptions {
  /** `smtp://` or `smtps://`, with user and password if the server wants them. */
  readonly smtpUrl: string;
  readonly from: Mailbox;
  readonly wording: Wording;
  /** ms for one message, from connecting to the server's last word. Default 10 s. */
  readonly timeoutMs?: number;
}

/**
 * Email by SMTP, one recipient a message, as text and HTML. Connections are kept and shared. A 5xx answer to a message is final; one to
 * our log-in, and everything else, is tried again, since it is for the operator to mend.
 */
export function emailChannel(options: EmailOptions): Channel {
  const transport = createTransport(pool(options.smtpUrl));
  return {
    async deliver(notice, target, signal) {
      if (target.channel !== 'email') return { outcome: 'failed', answer: `not an email: ${target.channel}` };
      const fault = judgeRecipient(target.to);
      if (fault !== undefined) return { outcome: 'failed', answer: `the recipient ${fault}` };
      try {
        return await withDeadline(options.timeoutMs ?? 10_000, signal, async (limit) => {
          const { response } = await transport.sendMail({ ...letter(notice, options.from, target.to, options.wording), signal: limit });
          return { outcome: 'delivered', status: Number(response.slice(0, 3)) || 250, answer: cleanAnswer(response) };
        });
      } catch (error) {
        return refusal(error);
      }
    },
    close: () => Promise.resolve(transport.close()),
  };
}

/** A password leaves this machine only inside TLS, unless the URL says otherwise (`?requireTLS=false`). */
function pool(smtpUrl: string): SMTPPoolOptions & { pool: true } {
  const url = new URL(smtpUrl);
  const loopback = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  return {
    url: smtpUrl,
    pool: true,
    maxConnections: 4,
    maxRequeues: 1,
    connectionTimeout: 10_000,
    greetingTimeout: 10_000,
    dnsTimeout: 10_000,
    socketTimeout: 30_000,
    idleTimeout: 30_000,
    requireTLS: url.username !== '' && !loopback && url.protocol === 'smtp:',
    disableFileAccess: true,
    disableUrlAccess: true,
  };
}

/**
 * The message. Its Message-ID comes from the notice, so a second delivery is recognisable as the same; all messages about one alert
 * refer to one id that no message has, so mail programs show them as one conversation.
 */
function letter(
  notice: Notice,
  from: Mailbox,
  to: string,
  wording: Wording,
): Parameters<ReturnType<typeof createTransport>['sendMail']>[0] {
  const message = messageOfNotice(notice, wording);
  const host = from.address.slice(from.address.lastIndexOf('@') + 1);
  const data = notice.data;
  const thread = 'alert' in data ? `<alert.${idPart(data.alert.id)}@${host}>` : undefined;
  return {
    envelope: { from: from.address, to: [to] },
    from: { name: from.name, address: from.address },
    to: { name: '', address: to },
    subject: message.subject,
    date: new Date(notice.timestamp),
    messageId: `<${idPart(notice.id)}@${host}>`,
    ...(thread === undefined ? {} : { inReplyTo: thread, references: thread }),
    headers: headersOf(message, 'rule' in data ? `<rule.${idPart(data.rule.id)}.${host}>` : undefined),
    text: textOf(message),
    html: htmlOf(message),
  };
}

/** No machine should answer (RFC 3834), and mail rules can sort by List-Id (RFC 2919). */
function headersOf({ kind }: Message, list: string | undefined): Record<string, string> {
  const importance = kind === 'critical' ? 'high' : kind === 'resolved' ? 'low' : undefined;
  return {
    'Auto-Submitted': 'auto-generated',
    'X-Auto-Response-Suppress': 'All',
    ...(importance === undefined ? {} : { Importance: importance }),
    ...(list === undefined ? {} : { 'List-Id': list }),
  };
}

/** An id as a part of a Message-ID; one with other characters, or too long for a line, is replaced by its hash. */
function idPart(id: string): string {
  return /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/.test(id) && id.length <= 128
    ? id
    : createHash('sha256').update(id).digest('hex').slice(0, 40);
}

function refusal(error: unknown): Attempt {
  const { responseCode, response, code, command } = error as Partial<NodemailerError>;
  // Of a send that was cut off, the library keeps the reason as the cause.
  const answer = cleanAnswer(response ?? messageOf(code === 'EABORT' ? (error as Error).cause : error));
  const ours = code === 'EAUTH' || code === 'ENOAUTH' || code === 'ETLS' || command === 'CONN' || command?.startsWith('AUTH') === true;
  const final = responseCode !== undefined && responseCode >= 500 && responseCode < 600 && responseCode !== 503 && !ours;
  return { outcome: final ? 'failed' : 'retry', ...(responseCode === undefined ? {} : { status: responseCode }), answer };
}

import type { Notice } from '../../channel.ts';
import { cut } from '../one-line.ts';
import type { Message } from './message.ts';

/** What a service worker gets as JSON, in the words of `showNotification(title, options)`. */
export interface PushBody {
  readonly title: string;
  readonly body: string;
  /** The same for all notices of an alert, so that a later one takes an earlier one's place. */
  readonly tag: string;
  readonly silent: boolean;
  readonly timestamp: number;
  readonly data: {
    readonly id: string;
    readonly type: Notice['type'];
    readonly kind: Message['kind'];
    /** To open on a click. */
    readonly url?: string;
  };
}

/**
 * A message as a push notification of at most so many bytes of JSON: the text gives way first, then the link, then the title.
 * @param tag see `PushBody`
 */
export function pushBody(notice: Notice, message: Message, tag: string, maxBytes: number): Buffer {
  let text = pushText(message);
  let url = message.link;
  let title = message.title;
  for (;;) {
    const body: PushBody = {
      title: message.kind === 'resolved' ? `Resolved: ${title}` : title,
      body: text,
      tag,
      silent: message.kind === 'resolved',
      timestamp: Date.parse(notice.timestamp),
      data: { id: notice.id, type: notice.type, kind: message.kind, ...(url === undefined ? {} : { url }) },
    };
    const bytes = Buffer.from(JSON.stringify(body));
    if (bytes.length <= maxBytes || (text === '' && url === undefined && title.length <= 16)) return bytes;
    if (text !== '') text = text.length > 32 ? cut(text, Math.floor(text.length / 2)) : '';
    else if (url !== undefined) url = undefined;
    else title = cut(title, Math.max(16, Math.floor(title.length / 2)));
  }
}

function pushText(message: Message): string {
  const where = message.facts.find(([label]) => label === 'Where')?.[1];
  if (message.kind !== 'digest') return [message.lead, where].filter(Boolean).join('\n');
  return message.groups.map(({ title, counts }) => `${title}: ${counts}`).join('\n');
}

import { judgeRecipient } from '../../../schemas/recipient.ts';

export interface Mailbox {
  /** Empty when there is none. */
  readonly name: string;
  readonly address: string;
}

/** `name@example.com` or `Name <name@example.com>` taken apart; undefined when it is neither. */
export function parseMailbox(text: string): Mailbox | undefined {
  const long = /^([^<>\p{Cc}]*)<([^<>\s]+)>$/u.exec(text.trim());
  const address = long?.[2] ?? text.trim();
  const name = (long?.[1] ?? '').trim().replace(/^"(.*)"$/, '$1');
  return judgeRecipient(address) === undefined ? { name, address } : undefined;
}

import type { Message } from './message.ts';

/** A message as plain text, lines of any length. */
export function textOf(message: Message): string {
  const width = Math.max(0, ...message.facts.map(([label]) => label.length));
  const blocks = [
    [message.title, message.lead],
    message.facts.map(([label, text]) => `${label.padEnd(width)}  ${text}`),
    ...message.groups.map(({ title, counts, items }) => [`${title} (${counts})`, ...items.map(({ text }) => `- ${text}`)]),
    message.more > 0 ? [`and ${message.more} more`] : [],
    message.link === undefined ? [] : [message.link],
  ];
  return `${blocks
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')}\n`;
}

import type { Message } from './message.ts';

const colours: Readonly<Record<Message['kind'], string>> = {
  critical: '#c62828',
  warning: '#b26a00',
  info: '#1565c0',
  resolved: '#2e7d32',
  digest: '#5f6368',
};

/** Escapes for element content and for attribute values in double quotes. */
function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/**
 * A message as an HTML document for mail programs: inline styles, since many drop others; no images, scripts or anything that is fetched.
 * Colours are those of the reader's program, light or dark, but for one stripe.
 */
export function htmlOf(message: Message): string {
  const colour = colours[message.kind];
  const body = [
    `<p style="margin:0 0 4px;font-size:12px;font-weight:600;letter-spacing:.06em;text-transform:uppercase;color:${colour}">${message.kind}</p>`,
    `<h1 style="margin:0 0 4px;font-size:20px;line-height:1.3">${escapeHtml(message.title)}</h1>`,
    `<p style="margin:0 0 16px;font-size:16px;line-height:1.4">${escapeHtml(message.lead)}</p>`,
    facts(message),
    ...message.groups.map(group),
    message.more > 0 ? `<p style="margin:0 0 16px">and ${message.more} more</p>` : '',
    message.link === undefined ? '' : link(message.link, colour),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>${escapeHtml(message.subject)}</title>
<style>:root{color-scheme:light dark}</style>
</head>
<body style="margin:0;padding:16px;font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-size:14px;line-height:1.5">
<div style="max-width:600px;border-left:4px solid ${colour};padding:4px 0 4px 16px;overflow-wrap:anywhere">
${body.filter(Boolean).join('\n')}
</div>
</body>
</html>
`;
}

function facts(message: Message): string {
  if (message.facts.length === 0) return '';
  const rows = message.facts.map(
    ([label, text]) =>
      `<tr><th style="padding:2px 16px 2px 0;text-align:left;vertical-align:top;font-weight:400;opacity:.7">${escapeHtml(label)}</th><td style="padding:2px 0">${escapeHtml(text)}</td></tr>`,
  );
  return `<table role="presentation" style="border-collapse:collapse;margin:0 0 16px;font-size:14px">\n${rows.join('\n')}\n</table>`;
}

function group({ title, counts, items }: Message['groups'][number]): string {
  const lines = items.map(({ text, resolved, link: url }) => {
    const shown = url === undefined ? escapeHtml(text) : `<a href="${escapeHtml(url)}" style="color:inherit">${escapeHtml(text)}</a>`;
    return `<li style="margin:2px 0${resolved ? ';opacity:.7' : ''}">${shown}</li>`;
  });
  return `<h2 style="margin:0 0 2px;font-size:15px">${escapeHtml(title)} <span style="font-weight:400;opacity:.7">${counts}</span></h2>
<ul style="margin:0 0 16px;padding-left:18px">
${lines.join('\n')}
</ul>`;
}

function link(url: string, colour: string): string {
  return `<p style="margin:0"><a href="${escapeHtml(url)}" style="display:inline-block;padding:8px 14px;border-radius:6px;background:${colour};color:#ffffff;text-decoration:none">Open</a></p>`;
}

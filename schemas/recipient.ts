/** Longest path, local part and label (RFC 5321 §4.5.3, RFC 1035 §2.3.4). */
const maxLength = 254;
const maxLocal = 64;
const local = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/;
const domain = /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;

/**
 * Why a text is not one recipient of email, as a sentence's end that follows the field's name. One plain address `local@domain` (dot-atom
 * of RFC 5321) is: no display name, list, group, comment, quotes, route or address literal, so that nothing in it can be read as
 * more than one recipient, by us or by a mail server.
 */
export function judgeRecipient(text: string): string | undefined {
  const at = text.lastIndexOf('@');
  if (at < 1) return 'must be one email address like name@example.com';
  if (/[,;]/.test(text)) return 'must be one email address, not a list';
  if (text.length > maxLength || at > maxLocal)
    return `must be an email address of at most ${maxLength} characters, ${maxLocal} before the @`;
  if (!local.test(text.slice(0, at)) || !domain.test(text.slice(at + 1)))
    return 'must be one plain email address like name@example.com, in ASCII, without a name, quotes or brackets';
  return undefined;
}

import { messageOf } from '../../pipeline/runtime/errors.ts';
import { countDead, listDead } from '../../processors/notify/redrive.ts';
import type { Cli } from '../cli.ts';
import { table } from '../table.ts';
import { nothingText } from './nothing.ts';
import { notify, selectionOf, shownAtOnce, type SelectionOptions } from './selection.ts';
import { onDatabase, onDesk } from './sources.ts';
import { countsText, heads, letterJson, letterLine, notificationJson, notificationLine } from './text.ts';

export interface ListOptions extends SelectionOptions {
  readonly data?: string;
  readonly json?: boolean;
  readonly count?: number;
  readonly dropped?: boolean;
}

/**
 * Lists dead letters, the oldest first, and how many each processor has.
 * @param processor its letters alone, or the notifications; undefined for all there are
 */
export async function listAll(cli: Cli, processor: string | undefined, options: ListOptions): Promise<void> {
  const { letters, notifications } = selectionOf([], { ...options, ...(processor !== undefined && { processor }) });
  const most = options.count ?? (options.json ? Infinity : shownAtOnce);
  const counts = new Map<string, number>();
  const lines: (readonly string[])[] = [];
  let shown = 0;
  let nothing: string | undefined;
  const show = async (name: string, line: () => readonly string[], json: () => string): Promise<void> => {
    counts.set(name, (counts.get(name) ?? 0) + 1);
    if (++shown > most) return;
    if (options.json) await cli.out.line(json());
    else lines.push(line());
  };
  if (letters) {
    await onDesk(cli, options, async (desk) => {
      const found = options.dropped ? desk.dropped(letters.processor, cli.signal) : desk.list(letters.processor, cli.signal);
      for await (const letter of found) {
        if (!letters.matches(letter)) continue;
        await show(
          letter.processor,
          () => letterLine(letter),
          () => letterJson(letter),
        );
        if (options.json && shown >= most) return;
      }
      if (shown === 0 && !options.json && !options.dropped)
        nothing = await nothingText(desk, { ...options, ...(processor !== undefined && { processor }) }, cli.signal);
    });
  }
  const asked = processor === notify || letters === undefined;
  if (notifications && !options.dropped) {
    const listing = onDatabase(cli, options, async (pool) => {
      for (const one of await listDead(pool, notifications, Number.isFinite(most) ? most : 1e9))
        await show(
          notify,
          () => notificationLine(one),
          () => notificationJson(one),
        );
      const all = await countDead(pool, notifications);
      if (all > 0) counts.set(notify, all);
    });
    // Who has asked for events, too, gets those at least.
    await listing.catch(async (error: unknown) => {
      if (asked || cli.signal.aborted) throw error;
      await cli.err.line(`Notifications are not listed: ${messageOf(error)}`);
    });
  }
  if (options.json) return;
  if (lines.length > 0) await cli.out.line(table(cli.out, heads, lines));
  const total = [...counts.values()].reduce((sum, many) => sum + many, 0);
  const rest = total > lines.length ? `; ${lines.length} are shown, -n shows more` : '';
  await cli.err.line(total === 0 && nothing !== undefined ? nothing : (options.dropped ? `${total} dropped` : countsText(counts)) + rest);
}

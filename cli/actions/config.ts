import { configOf, type Cli } from '../cli.ts';
import { configurationMarkdown, settingRows, type SettingRow } from '../configuration.ts';
import { table } from '../table.ts';

/** Prints every setting, then throws what is wrong with them. */
export async function config(cli: Cli, { json, markdown }: { json?: boolean; markdown?: boolean }): Promise<void> {
  if (markdown) return cli.out.write(configurationMarkdown());
  const rows = settingRows(cli.env);
  await cli.out.line(json ? JSON.stringify(rows, undefined, 2) : tableOf(cli, rows));
  // What is wrong is shown in the table too; here it is explained, and the exit code says so.
  configOf(cli);
}

function tableOf(cli: Cli, rows: readonly SettingRow[]): string {
  const { bold, red, dim } = cli.out.colors;
  const valueWidth = 26;
  const cells = rows.map(({ name, value, source, type, help }) => [
    name,
    source === 'default' ? dim(value) : source === 'invalid' ? red(value) : bold(value),
    source === 'invalid' ? red(source) : source,
    type,
    help,
  ]);
  const used = 34 + valueWidth + 14 + 26;
  return table(cli.out, ['NAME', 'VALUE', 'SOURCE', 'TYPE', 'MEANING'], cells, [
    34,
    valueWidth,
    14,
    26,
    Math.max(30, (cli.out.columns ?? 140) - used - 8),
  ]);
}

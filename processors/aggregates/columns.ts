import type { LogEvent } from '../../pipeline/log/event-log.ts';
import { suggestion } from '../../schemas/nearest.ts';
import type { Definition } from './model.ts';

/** Columns of a definition that its table does not have, each as text for a person, going by an event of the table's schema. */
export function missingColumns({ data }: LogEvent, { by, value, time }: Definition): readonly string[] {
  const names = columnNames(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8'));
  if (!names) return [];
  const wanted = [...by, ...(value === undefined ? [] : [value]), ...(time === undefined ? [] : [time])];
  return [...new Set(wanted)].filter((name) => !names.includes(name)).map((name) => `${name}${suggestion(name, names)}`);
}

function columnNames(event: string): readonly string[] | undefined {
  try {
    const { columns } = JSON.parse(event) as { readonly columns?: readonly { readonly name: string }[] };
    return columns?.map(({ name }) => name);
  } catch {
    return undefined;
  }
}

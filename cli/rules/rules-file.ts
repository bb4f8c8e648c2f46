import { isMap, isScalar, isSeq, LineCounter, parseDocument, visit, type Document } from 'yaml';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { exactNumber } from '../../schemas/condition/parser.ts';
import { isDecimal } from '../../schemas/decimal.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { checkRule, type RuleDocument } from '../../schemas/rule.ts';

/** Something wrong in a file; `message` is for people, without the place. */
export interface FileFault {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

/** A rule of a file. */
export interface FileRule {
  readonly rule: RuleDocument;
  /** The same as it stands there, conditions as text, so that what is wrong with them is told by its place. */
  readonly given: object;
  /** What is wrong with a part of it; `field` as in the faults of `checkRule`. */
  fault(field: string, message: string): FileFault;
}

export interface RulesFile {
  readonly rules: readonly FileRule[];
  /** Everything that is wrong. */
  readonly faults: readonly FileFault[];
}

type Env = Readonly<Record<string, string | undefined>>;
type Path = readonly (string | number)[];

/**
 * Reads rules from YAML (or JSON, which is YAML): `rules:` and a list of them, as REST takes them; conditions as text or as trees.
 * In the texts of a channel `${NAME}` is the variable of that name, so that secrets need not stand in the file.
 * Columns are not judged here: only the gateway knows them.
 * @param fileName for the messages
 */
export function parseRulesFile(text: string, fileName: string, env: Env): RulesFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, merge: true });
  const at = (path: Path, message: string): FileFault => ({ file: fileName, line: lineOf(document, lines, path), message });
  if (document.errors.length > 0) {
    const faults = document.errors.map(({ pos, message }) => ({ file: fileName, line: lines.linePos(pos[0]).line, message }));
    return { rules: [], faults };
  }
  keepDigits(document);
  let data: unknown;
  try {
    data = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return { rules: [], faults: [at([], messageOf(error))] };
  }
  if (!isObject(data) || !Array.isArray(data['rules']))
    return { rules: [], faults: [at(['rules'], 'the file must have a list `rules:`; `rules: []` for none')] };
  const unknown = Object.keys(data).filter((name) => name !== 'rules');
  const faults = unknown.map((name) => at([name], `${name} is not known here${suggestion(name, ['rules'])}`));
  const rules: FileRule[] = [];
  for (const [i, item] of (data['rules'] as readonly unknown[]).entries()) {
    const label = labelOf(item, i);
    const fault = (field: string, message: string): FileFault =>
      at(['rules', i, ...pathOf(field)], `${label}: ${field === 'rule' ? 'it' : field} ${message}`);
    const unset: FileFault[] = [];
    const given = fillChannels(item, env, (field, message) => unset.push(fault(field, message)));
    const checked = checkRule(given, () => undefined);
    const others = (checked.faults ?? []).map(({ field, message }) => fault(field, message));
    // What a variable that is not set makes of its text needs no further words.
    faults.push(...unset, ...others.filter(({ line }) => unset.every((one) => one.line !== line)));
    if (checked.rule && unset.length === 0) rules.push({ rule: checked.rule, given: given as object, fault });
  }
  return { rules, faults };
}

/** Numbers that a double does not hold as they are written become text with all their digits. */
function keepDigits(document: Document): void {
  visit(document, {
    Scalar(_, node) {
      if (typeof node.value === 'number' && node.source !== undefined && isDecimal(node.source)) node.value = exactNumber(node.source);
    },
  });
}

function labelOf(given: unknown, i: number): string {
  const name = isObject(given) ? given['name'] : undefined;
  return typeof name === 'string' && name !== '' ? `rule ${JSON.stringify(name)}` : `rule ${i + 1}`;
}

/** The rule with variables of the environment put into the texts of its channels. */
function fillChannels(given: unknown, env: Env, report: (field: string, message: string) => void): unknown {
  if (!isObject(given) || !Array.isArray(given['channels'])) return given;
  const channels = (given['channels'] as readonly unknown[]).map((channel, i) => {
    if (!isObject(channel)) return channel;
    return Object.fromEntries(
      Object.entries(channel).map(([member, value]) => {
        if (typeof value !== 'string') return [member, value];
        const filled = value.replace(/\$\{(\w+)\}/gu, (_, name: string) => {
          if (env[name] === undefined) report(`channels[${i}].${member}`, `names \${${name}}, which is not set in the environment`);
          return env[name] ?? '';
        });
        return [member, filled];
      }),
    );
  });
  return { ...given, channels };
}

/** `when.and[1].value` → its steps. Where a column's name has dots, the steps lead nowhere, and the line is that of what is around. */
function pathOf(field: string): Path {
  return field === 'rule'
    ? []
    : [...field.matchAll(/[^.[\]]+|\[(\d+)\]/gu)].map(([step, index]) => (index === undefined ? step : Number(index)));
}

/** The line of the node at the path, or of the nearest around it that there is. */
function lineOf(document: Document, lines: LineCounter, path: Path): number {
  let node: unknown = document.contents;
  let offset: number | undefined = rangeStart(node);
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
      if (!pair) break;
      offset = rangeStart(pair.key) ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(step)];
      offset = rangeStart(node) ?? offset;
    } else break;
  }
  return Math.max(1, lines.linePos(offset ?? 0).line);
}

function rangeStart(node: unknown): number | undefined {
  return isScalar(node) || isMap(node) || isSeq(node) ? node.range?.[0] : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

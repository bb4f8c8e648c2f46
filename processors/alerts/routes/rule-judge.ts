import type { FieldFault } from '../../../pipeline/runtime/http.ts';
import { badBody } from '../../../pipeline/runtime/request-fault.ts';
import type { Catalog } from '../../../schemas/catalog.ts';
import { parseDuration } from '../../../schemas/duration.ts';
import type { RuleChannel } from '../../../schemas/rule-channels.ts';
import { checkRule, type RuleDocument } from '../../../schemas/rule.ts';
import { judgeUrl } from '../../notify/channels/guard/url.ts';
import type { OwnedRows } from './owned-rows.ts';
import type { RuleContent } from './rule-resource.ts';
import { findTable, type FoundTable, type RuleTable } from './tables.ts';

export interface JudgeParts {
  readonly rows: OwnedRows;
  readonly catalog: Catalog;
  /** Capture's. */
  readonly publications: readonly string[];
  /** Webhooks may lead to private addresses: for development. */
  readonly allowPrivate: boolean;
}

/** A rule that can be stored, and the table it is on. */
export interface JudgedRule {
  readonly content: RuleContent;
  readonly channels: readonly RuleChannel[];
  readonly table: RuleTable;
}

type Body = Readonly<Record<string, unknown>>;

/** Says of a rule that comes from outside whether it can be stored, or everything that is wrong with it. */
export class RuleJudge {
  readonly #parts: JudgeParts;

  constructor(parts: JudgeParts) {
    this.#parts = parts;
  }

  /**
   * @param body without the members that only the server sets
   * @param place what stands in front of the names of fields in faults, like `rule.`
   * @throws RequestFault `bad_request` with all faults
   */
  async judge(body: Body, place = ''): Promise<JudgedRule> {
    const known = await this.#table(body['table']);
    const checked = checkRule(body, () => known?.fault ?? known?.found?.columns);
    const faults: FieldFault[] = [...(checked.faults ?? [])];
    if (known?.found && isMissing(body['groupBy']) && known.found.key.length === 0)
      faults.push({
        field: 'groupBy',
        message: `is missing, and ${String(body['table'])} has no primary key: name the columns that make an entity`,
      });
    for (const fault of this.#targetFaults(body['channels'])) {
      if (!faults.some(({ field }) => field === fault.field)) faults.push(fault);
    }
    if (faults.length > 0 || !checked.rule || !known?.found)
      throw badBody(faults.map(({ field, message }) => ({ field: `${place}${field}`, message })));
    return { content: contentOf(checked.rule), channels: checked.rule.channels, table: known.found };
  }

  async #table(name: unknown): Promise<FoundTable | undefined> {
    if (typeof name !== 'string' || name.length > 512 || !name.includes('.')) return undefined;
    const { rows, catalog, publications } = this.#parts;
    return rows.catalogue((statements) => findTable(statements, name, catalog, publications));
  }

  /** Whoever gives a URL that must not be called is told now, not when an alert is lost. */
  #targetFaults(channels: unknown): readonly FieldFault[] {
    if (!Array.isArray(channels)) return [];
    return channels.flatMap((channel: unknown, i): FieldFault[] => {
      const { type, url } = (channel ?? {}) as Body;
      if (type !== 'webhook' || typeof url !== 'string') return [];
      const { fault } = judgeUrl(url, { allowPrivate: this.#parts.allowPrivate });
      return fault === undefined ? [] : [{ field: `channels[${i}].url`, message: fault }];
    });
  }
}

function isMissing(value: unknown): boolean {
  return value === undefined || value === null;
}

function contentOf(rule: RuleDocument): RuleContent {
  const seconds = (text: string): number => (parseDuration(text) ?? 0) / 1_000_000;
  return {
    name: rule.name,
    table: rule.table,
    match: rule.match,
    groupBy: rule.groupBy,
    when: rule.when,
    clear: rule.clear,
    forSeconds: seconds(rule.for),
    keepFiringForSeconds: seconds(rule.keepFiringFor),
    cooldownSeconds: seconds(rule.cooldown),
    severity: rule.severity,
    enabled: rule.enabled,
  };
}

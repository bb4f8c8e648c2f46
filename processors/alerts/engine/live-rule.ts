import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { RuleCondition } from '../../../schemas/condition/condition.ts';
import type { Truth, RuleView } from '../../../schemas/condition/evaluate.ts';
import type { Rule } from '../model.ts';
import type { Episode } from './episode.ts';
import type { RuleRow } from './saved.ts';
import type { Stream } from './stream.ts';

/** A rule with what follows from its definition; as small as can be, since there can be a million of them. */
export interface RuleDefinition extends Rule {
  /** It fires at events alone: `when` has an operator that holds for a moment. */
  readonly edge: boolean;
}

/** The conditions of a rule in the form in which they are evaluated. */
export interface Evaluation {
  readonly when: (view: RuleView) => Truth;
  readonly clear: ((view: RuleView) => Truth) | undefined;
}

/** A revision of a rule, in force from the sequence `seq` on. */
export class LiveRule {
  readonly definition: RuleDefinition;
  readonly seq: Seq;
  readonly stream: Stream;
  /** It asks whether nothing has come for some time. */
  readonly timed: boolean;
  /** It is no longer in force; whoever still holds it passes over it. */
  gone = false;
  /** Head of the list of its episodes. */
  episodes: Episode | undefined = undefined;
  /** Compiled when needed, and dropped when too many are. */
  evaluation: Evaluation | undefined = undefined;
  /** Number of the search that has found it last. */
  mark = 0;

  constructor(definition: RuleDefinition, seq: Seq, stream: Stream) {
    this.definition = definition;
    this.seq = seq;
    this.stream = stream;
    this.timed = asksAbsence(definition.when) || (definition.clear !== undefined && asksAbsence(definition.clear));
  }
}

function asksAbsence(node: RuleCondition): boolean {
  if ('and' in node) return node.and.some(asksAbsence);
  if ('or' in node) return node.or.some(asksAbsence);
  return 'not' in node ? asksAbsence(node.not) : 'absent_for' in node;
}

/** The row of a rule, as its event had it. */
export function rowOf(rule: RuleDefinition): RuleRow {
  return {
    id: rule.id,
    user_id: rule.userId,
    revision: rule.revision,
    name: rule.name,
    table_name: rule.table,
    match: Object.fromEntries(rule.match.map(({ column, values }) => [column, values])),
    group_by: rule.groupBy ?? null,
    condition: rule.when,
    clear_condition: rule.clear ?? null,
    for_seconds: rule.forMicros / 1e6,
    keep_firing_for_seconds: rule.keepFiringForMicros / 1e6,
    cooldown_seconds: rule.cooldownMicros / 1e6,
    severity: rule.severity,
    enabled: true,
  };
}

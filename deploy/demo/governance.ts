import { proposalTitle } from './names.ts';
import { amountText } from './decimals.ts';
import type { Random } from './random.ts';
import { insert, type Statement } from './statements.ts';
import type { World } from './world.ts';

/** A proposal that still has something ahead of it. Times in ms since 1970. */
export interface Proposal {
  readonly id: string;
  readonly state: 'active' | 'succeeded';
  readonly endsAt: number;
}

const columns = ['id', 'protocol_slug', 'title', 'state', 'votes_for', 'votes_against', 'ends_at'];
const executionDelayMs = 45_000;

/** Proposals are opened, voted on for some minutes, closed by their votes, and executed a little later. */
export class Governance {
  readonly #world: World;
  readonly #random: Random;
  #proposals: readonly Proposal[];
  #number: number;

  /** @param number how many proposals there have been */
  constructor(world: World, random: Random, proposals: readonly Proposal[], number: number) {
    this.#world = world;
    this.#random = random;
    this.#proposals = proposals;
    this.#number = number;
  }

  get active(): number {
    return this.#proposals.filter(({ state }) => state === 'active').length;
  }

  open(now: number, count = 1): Statement {
    const rows = Array.from({ length: count }, () => {
      const random = this.#random;
      const protocol = random.pick(this.#world.protocols.slice(0, 60));
      const number = ++this.#number;
      const endsAt = now + random.int(90, 1_500) * 1_000;
      const id = `${protocol.slug}:${number}`;
      this.#proposals = [...this.#proposals, { id, state: 'active', endsAt }];
      const title = proposalTitle(
        random,
        number,
        this.#world.tokens.slice(0, 20).map(({ symbol }) => symbol),
      );
      return {
        id,
        protocol_slug: protocol.slug,
        title,
        state: 'active',
        votes_for: '0',
        votes_against: '0',
        ends_at: new Date(endsAt).toISOString(),
      };
    });
    return insert('governance_proposals', columns, rows);
  }

  /** One more vote on an active proposal; undefined when there is none. */
  vote(): Statement | undefined {
    const random = this.#random;
    const active = this.#proposals.filter(({ state }) => state === 'active');
    if (active.length === 0) return undefined;
    const { id } = random.pick(active);
    const side = random.next() < 0.72 ? 'votes_for' : 'votes_against';
    const weight = amountText(Math.exp(6 + 2.2 * random.normal()), 18, random);
    return {
      text: `UPDATE public.governance_proposals SET ${side} = ${side} + $2, updated_at = now() WHERE id = $1 AND state = 'active'`,
      values: [id, weight],
      rows: 1,
    };
  }

  /** What time brings: closing at the end of the vote, execution after that. */
  due(now: number): Statement[] {
    const closing = this.#proposals.filter(({ state, endsAt }) => state === 'active' && endsAt <= now).map(({ id }) => id);
    const executing = this.#proposals
      .filter(({ state, endsAt }) => state === 'succeeded' && endsAt + executionDelayMs <= now)
      .map(({ id }) => id);
    if (closing.length + executing.length === 0) return [];
    this.#proposals = this.#proposals
      .filter(({ id }) => !executing.includes(id))
      // The votes are counted in the database; a defeated one is then simply not executed.
      .map((proposal) => (closing.includes(proposal.id) ? { ...proposal, state: 'succeeded' } : proposal));
    const statements = [
      { ids: closing, set: `CASE WHEN votes_for > votes_against THEN 'succeeded' ELSE 'defeated' END`, where: 'active' },
      { ids: executing, set: `'executed'`, where: 'succeeded' },
    ];
    return statements
      .filter(({ ids }) => ids.length > 0)
      .map(({ ids, set, where }) => ({
        text: `UPDATE public.governance_proposals SET state = ${set}, updated_at = now() WHERE id = ANY ($1) AND state = '${where}'`,
        values: [ids],
        rows: ids.length,
      }));
  }
}

import { once } from 'node:events';
import type { BesideState } from '../../../pipeline/runner/rebuild/model.ts';
import { startCli } from '../../cli/support/run-cli.ts';
import type { Random } from '../../pipeline/capture/support/random.ts';
import { fatalRoad, type FatalRoad } from '../../support/fatal-road.ts';
import type { Instances } from '../../support/instances.ts';

/** What is rebuilt, and who keeps it up to date meanwhile. */
export interface WalkParts {
  /** As the command line names it. */
  readonly name: string;
  /** What stands beside the live state. */
  readonly state: () => Promise<BesideState | undefined>;
  readonly env: Readonly<Record<string, string>>;
  /** Which server holds the state. */
  readonly server: 'REDIS_URL' | 'DATABASE_URL';
  readonly role: Instances;
  /** As if the leases of all processes had lapsed that this is true of: of their id, or `rebuild` for commands. */
  readonly lapse: (of: (owner: number | 'rebuild') => boolean) => Promise<void>;
  /** How the pieces that commands send to the server show what they are about. */
  readonly phases: Readonly<Record<Phase, Pieces>>;
  readonly random: Random;
  readonly say?: (text: string) => void;
}

export const phases = ['fill', 'comparison', 'flip', 'drop'] as const;
export type Phase = (typeof phases)[number];

/** How the pieces of a phase are known. */
export interface Pieces {
  /** Is this one of it? */
  readonly of: (piece: Buffer) => boolean;
  /** So many there are of it at least, one after the other. */
  readonly least: number;
}

interface Step {
  readonly code: number | null;
  readonly killed: boolean;
  readonly said: string;
}

const patienceMs = 180_000;

/**
 * Commands of `headwater rebuild` as processes, one after the other, each any of those that make sense then. Most are killed at one of their steps, and some take
 * the live role's process with them, which begins anew. Whatever is not killed must succeed.
 */
export class RebuildWalk {
  readonly #parts: WalkParts;
  readonly #road: FatalRoad;
  /** How many steps a command has when it is let. */
  readonly #lengths = new Map<string, number>();
  /** How often which command was killed, and what stood beside then. */
  readonly kills = new Map<string, number>();
  roleKills = 0;

  private constructor(parts: WalkParts, road: FatalRoad) {
    this.#parts = parts;
    this.#road = road;
  }

  static async begin(parts: WalkParts): Promise<RebuildWalk> {
    return new RebuildWalk(parts, await fatalRoad(parts.env[parts.server]!));
  }

  get killed(): number {
    return [...this.kills.values()].reduce((sum, n) => sum + n, 0);
  }

  close(): Promise<void> {
    return this.#road.close();
  }

  /** Until so many commands have been killed, whatever stands beside. */
  async wander(kills: number): Promise<void> {
    const { random, state } = this.#parts;
    const sensible: Readonly<Record<BesideState | 'nothing', readonly string[]>> = {
      nothing: ['', '--no-flip'],
      filling: ['', '--no-flip', '--flip', '--abort'],
      kept: ['--drop', '--flip'],
      dropping: ['--drop', '--abort', ''],
    };
    while (this.killed < kills) await this.#step(random.pick(sensible[(await state()) ?? 'nothing']), true);
  }

  /** Removes what stands beside, by one command or several; killed once on the way, where it is told when. */
  async clear(phase?: 'drop'): Promise<void> {
    for (let n = 0, state = await this.#parts.state(); state !== undefined; n++, state = await this.#parts.state())
      await this.#step(state === 'kept' ? '--drop' : '--abort', n === 0 && phase);
  }

  /** A rebuild that is flipped, killed once in each phase before that is done. */
  async flip(): Promise<void> {
    for (const phase of phases.slice(0, -1)) await this.#step('', phase);
    if ((await this.#parts.state()) !== 'kept') await this.#step('');
  }

  /** @param kill true: anywhere */
  async #step(order: string, kill: Phase | boolean = false): Promise<void> {
    const { name, random, state, role, lapse, say } = this.#parts;
    role.check();
    const phase = typeof kill === 'string' ? this.#parts.phases[kill] : undefined;
    const length = phase?.least ?? this.#lengths.get(order) ?? 120;
    // As often near the beginning as anywhere.
    const nth = random.chance(0.5) ? random.int(1, length) : Math.ceil(length ** random.next());
    const takesRole = kill !== false && random.chance(0.3);
    const step = await this.#run(order, kill === false ? Infinity : nth, takesRole, phase?.of);
    if (phase && !step.killed) throw new Error(`rebuild ${name} ${order} came to no ${kill}:\n${step.said.slice(-2_000)}`);
    await lapse((owner) => owner === 'rebuild');
    const now = (await state()) ?? 'nothing';
    say?.(
      `rebuild ${name} ${order}: ${step.killed ? `killed at ${nth}${phase ? ` of its ${kill}` : ''}` : `done after ${this.#road.sent}`}; beside stands ${now}`,
    );
    if (step.killed) {
      const what = phase ? String(kill) : `${order || 'rebuild'}: ${now}`;
      this.kills.set(what, (this.kills.get(what) ?? 0) + 1);
      return;
    }
    if (step.code !== 0) throw new Error(`rebuild ${name} ${order} ended with ${String(step.code)}:\n${step.said.slice(-2_000)}`);
    this.#lengths.set(order, Math.max(this.#road.sent, this.#lengths.get(order) ?? 0));
  }

  async #run(order: string, nth: number, takesRole: boolean, from?: (piece: Buffer) => boolean): Promise<Step> {
    const { name, env, server, random } = this.#parts;
    const mode = takesRole && !from ? random.pick(['both', 'role'] as const) : 'both';
    const passes = random.chance(0.5) ? 'passes' : 'lost';
    let [killed, replaced] = [false, Promise.resolve()];
    const child = startCli(['rebuild', name, ...(order === '' ? [] : [order])], { ...env, [server]: this.#road.url });
    const act = (): 'passes' | 'lost' => {
      if (takesRole) replaced = this.#replaceRole();
      if (mode === 'role') return 'passes';
      killed = true;
      child.kill('SIGKILL');
      return passes;
    };
    this.#road.at(nth, act, from);
    let said = '';
    for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    const overdue = (signal: NodeJS.Signals): void => {
      said += `\nnot done in time: ${signal}\n`;
      child.kill(signal);
    };
    const timers = [setTimeout(overdue, patienceMs, 'SIGTERM'), setTimeout(overdue, patienceMs + 30_000, 'SIGKILL')];
    const [code] = (await once(child, 'close')) as [number | null];
    for (const timer of timers) clearTimeout(timer);
    await replaced;
    return { code, killed, said };
  }

  async #replaceRole(): Promise<void> {
    const { role, lapse } = this.#parts;
    const [victim] = role.running;
    this.roleKills++;
    await role.kill(victim!);
    await lapse((owner) => owner === victim!.pid);
    role.start();
  }
}

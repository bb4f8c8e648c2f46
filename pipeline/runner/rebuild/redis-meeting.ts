import { unexpectedAnswer, untilRedisAnswers, type RedisClient, type RedisScript } from '../../clients/redis.ts';
import type { Seq } from '../../log/event-log.ts';
import { pause } from '../../runtime/backoff.ts';
import type { Steering } from './model.ts';

/**
 * Lua in front of what compares two states. KEYS: the live offset, the one beside; ARGV[1]: '' where both have to be at the same offset, 'any' where that does not matter, or where
 * the live one stands still. Answers where both are when it is not so; an array is for what the script has to say.
 */
export const whereTheyMeet = `
local live, beside = redis.call('HMGET', KEYS[1], 'seq', 'epoch'), redis.call('HMGET', KEYS[2], 'seq', 'epoch')
if ARGV[1] ~= 'any' and (live[1] ~= beside[1] or live[2] ~= beside[2]) and (live[1] or '') .. ' ' .. (live[2] or '') ~= ARGV[1] then
  return (live[1] or '') .. ' ' .. (live[2] or '') .. ' ' .. (beside[1] or '') .. ' ' .. (beside[2] or '')
end`;

export interface MeetingOffsets {
  readonly client: RedisClient;
  /** Keys of the offsets. */
  readonly live: string;
  readonly beside: string;
}

/** Of two that do not meet: where they are. */
interface Apart {
  readonly live: string;
  readonly seqs: readonly [live: Seq, beside: Seq];
  readonly sameEpoch: boolean;
}

const ms = {
  /** A live one that has not moved for so long, while the other is ahead, stands still. */
  still: 3_000,
  /** How long the first page waits for both to meet. A page that was in vain halves the patience of the next one, so that all of them together wait for twice as long. */
  patience: 4_000,
  /** How long the other one may take to where the live one was. */
  reach: 250,
};

/**
 * Brings a live state and the one beside it to the same offset, page after page of a comparison. The live one waits for nobody, so the fold is steered: behind, it goes as far as
 * the live one and no further; ahead, it is held until the live one has come.
 */
export class RedisMeeting {
  readonly #offsets: MeetingOffsets;
  readonly #steering: Steering;
  #patienceMs = ms.patience;
  /** Where the live one was seen, and since when it is there. */
  #seen = { live: '', since: performance.now() };
  #standing = '';

  constructor(offsets: MeetingOffsets, steering: Steering) {
    this.#offsets = offsets;
    this.#steering = steering;
  }

  /** Why what was compared is not of the same offset, said of the live one; undefined where it is. */
  get apart(): string | undefined {
    if (this.#standing === '') return undefined;
    const seq = this.#standing.split(' ')[0]!;
    return seq === '' ? 'it has not begun' : `it stands still at ${seq}`;
  }

  /**
   * Runs a script that begins with `whereTheyMeet` and writes nothing.
   * @returns its answer, and whether that is of the same offset, or of a live one that stands still; otherwise what differs may have changed in between
   */
  async run(
    script: RedisScript,
    args: readonly (string | number)[],
  ): Promise<{ readonly answer: readonly unknown[]; readonly met: boolean }> {
    const until = performance.now() + this.#patienceMs;
    for (;;) {
      this.#steering.signal.throwIfAborted();
      const answer = await this.#ask(script, this.#standing, args);
      if (Array.isArray(answer)) {
        this.#patienceMs = Math.min(ms.patience, this.#patienceMs * 2 + 10);
        return { answer, met: true };
      }
      const apart = apartOf(answer);
      if (this.#standsStill(apart)) {
        this.#standing = apart.live;
        continue;
      }
      if (performance.now() >= until) break;
      await this.#approach(apart);
    }
    this.#patienceMs /= 2;
    const answer = await this.#ask(script, 'any', args);
    if (!Array.isArray(answer)) throw unexpectedAnswer('a comparison', answer);
    return { answer, met: false };
  }

  #ask(script: RedisScript, where: string, args: readonly (string | number)[]): Promise<unknown> {
    const { client, live, beside } = this.#offsets;
    return untilRedisAnswers(() => script.run(client, [live, beside], [where, ...args]), this.#steering);
  }

  #standsStill({ live, seqs, sameEpoch }: Apart): boolean {
    const now = performance.now();
    if (live !== this.#seen.live) this.#seen = { live, since: now };
    return (!sameEpoch || seqs[1] > seqs[0]) && now - this.#seen.since > ms.still;
  }

  async #approach({ seqs: [live, beside], sameEpoch }: Apart): Promise<void> {
    const steering = this.#steering;
    if (sameEpoch && beside < live) {
      if (await steering.reach(live, ms.reach)) return;
    } else if (sameEpoch) await steering.reach(beside, 0);
    await pause(3, steering.signal);
  }
}

function apartOf(answer: unknown): Apart {
  if (!Buffer.isBuffer(answer)) throw unexpectedAnswer('a comparison', answer);
  const [seq = '', epoch, other = '', otherEpoch] = answer.toString().split(' ');
  return { live: `${seq} ${epoch}`, seqs: [Number(seq), Number(other)], sameEpoch: epoch === otherEpoch };
}

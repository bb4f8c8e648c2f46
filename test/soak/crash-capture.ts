import { parseArgs } from 'node:util';
import { crashTrial, type Victims } from '../pipeline/capture/support/crash-trial.ts';

/**
 * Kills capture, NATS and PostgreSQL again and again under load, and compares the log with the database's own history every
 * few kills: `npm run soak:capture -- --kills 200`.
 */
const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    /** What is killed at once, names joined by `+`; by default every combination. */
    victims: {
      type: 'string',
      multiple: true,
      default: ['capture', 'capture', 'nats', 'postgres', 'capture+nats', 'capture+postgres', 'nats+postgres'],
    },
    life: { type: 'string', default: '1500' },
  },
});

const killsAtOnce = 10;
const kills = Number(values.kills);
const victims = values.victims.map((text) => text.split('+') as unknown as Victims);
let events = 0;
for (let done = 0; done < kills; done += killsAtOnce) {
  const seed = (Number(values.seed) + done) >>> 0;
  const report = await crashTrial({ kills: Math.min(killsAtOnce, kills - done), victims, seed, lifeMs: Number(values.life) });
  events += report.events;
  console.log(`${Math.min(kills, done + killsAtOnce)} of ${kills} kills: the log equals the history`, JSON.stringify({ seed, ...report }));
}
console.log(JSON.stringify({ kills, seed: Number(values.seed), events }));

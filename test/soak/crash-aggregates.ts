import { parseArgs } from 'node:util';
import { aggregatesCrashTrial } from '../processors/aggregates/support/crash-trial.ts';
import { stopTestServers } from '../support/servers.ts';

/**
 * Kills the aggregates role again and again under changes at random, and compares the windows with SQL every few kills:
 * `npm run soak:aggregates -- --kills 100`.
 */
const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '100' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    life: { type: 'string', default: '1000' },
  },
});

const killsAtOnce = 25;
const kills = Number(values.kills);
let windows = 0;
try {
  for (let done = 0; done < kills; done += killsAtOnce) {
    const seed = (Number(values.seed) + done) >>> 0;
    const report = await aggregatesCrashTrial({ kills: Math.min(killsAtOnce, kills - done), seed, lifeMs: Number(values.life) });
    windows += report.windows;
    console.log(`${Math.min(kills, done + killsAtOnce)} of ${kills} kills: the windows equal SQL`, JSON.stringify({ seed, ...report }));
  }
  console.log(JSON.stringify({ kills, seed: Number(values.seed), windows }));
} finally {
  await stopTestServers();
}

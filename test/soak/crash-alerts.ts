import { parseArgs } from 'node:util';
import { alertsCrashTrial } from '../processors/alerts/support/crash-trial.ts';
import { stopTestServers } from '../support/servers.ts';

/**
 * Kills the alerts role again and again under load, and compares the history with a fresh fold of the log every few kills:
 * `npm run soak:alerts -- --kills 100`.
 */
const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '100' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    life: { type: 'string', default: '1500' },
  },
});

const killsAtOnce = 20;
const kills = Number(values.kills);
let transitions = 0;
try {
  for (let done = 0; done < kills; done += killsAtOnce) {
    const seed = (Number(values.seed) + done) >>> 0;
    const report = await alertsCrashTrial({ kills: Math.min(killsAtOnce, kills - done), seed, lifeMs: Number(values.life) });
    transitions += report.transitions;
    console.log(
      `${Math.min(kills, done + killsAtOnce)} of ${kills} kills: the history equals the fold`,
      JSON.stringify({ seed, ...report }),
    );
  }
  console.log(JSON.stringify({ kills, seed: Number(values.seed), transitions }));
} finally {
  await stopTestServers();
}

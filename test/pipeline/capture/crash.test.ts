import { crashTrial, type CrashTrialOptions } from './support/crash-trial.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

function trial(options: Omit<CrashTrialOptions, 'seed'>): () => Promise<void> {
  return async () => {
    const { events, transactions, recoveryMs } = await crashTrial({ ...options, seed });
    process.stdout.write(`      seed ${seed}: ${events} events of ${transactions} transactions; level ${recoveryMs} ms after the load\n`);
  };
}

describe('capture under kills: the log equals the database’s own history', function () {
  this.timeout(240_000);

  it('capture is killed again and again', trial({ kills: 10, victims: [['capture']], lifeMs: 800 }));

  it(
    'NATS and PostgreSQL are killed, alone, both at once, and each together with capture',
    trial({
      kills: 6,
      victims: [['nats'], ['postgres'], ['nats', 'postgres'], ['capture', 'nats'], ['capture', 'postgres']],
      lifeMs: 800,
    }),
  );
});

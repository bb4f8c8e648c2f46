import { startLocalServices } from '../../deploy/local/services.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';

/**
 * A program of its own that runs local services until its standard input ends: tests kill it, or run it as another user.
 * Prints one JSON line when they serve, and one when it has stopped them.
 */
const [data] = process.argv.slice(2);
if (data === undefined) throw new Error('usage: run-services DATA');
const services = await startLocalServices({
  data,
  need: { postgres: true, nats: true, redis: true },
  install: false,
  log: createLogger('warn', false),
});
const { databaseUrl, nats, redisUrl, pids } = services;
process.stdout.write(`${JSON.stringify({ databaseUrl, nats, redisUrl, pids })}\n`);
process.stdin.resume().once('end', () => {
  void services.stop().then(() => process.stdout.write('{"stopped":true}\n'));
});

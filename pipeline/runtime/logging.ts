import { pino, type Logger as PinoLogger } from 'pino';
import { PassThrough } from 'node:stream';
import pretty from 'pino-pretty';

/** The project's logger: one line a thing that happened, no secrets. */
export type Logger = PinoLogger;

/** Logs go to stderr, so that stdout stays for answers: JSON lines, or readable ones on a terminal. */
export function createLogger(level: string, terminal: boolean = process.stderr.isTTY): Logger {
  if (!terminal) return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, process.stderr);
  const stream = pretty({
    destination: 2,
    sync: true,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'role',
    singleLine: true,
    messageFormat: '{if role}{role}: {end}{msg}',
  });
  return pino({ level, base: null }, stream);
}

/** A logger that says nothing, for tests and short commands. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' }, new PassThrough());
}

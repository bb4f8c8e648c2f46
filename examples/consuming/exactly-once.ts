// Counts the changes of each token's price, each exactly once, whatever is killed when: the place in the log is in the database
// that holds the result, and both change in one transaction. When the database goes away it ends; started again it goes on.
import { setTimeout } from 'node:timers/promises';
import { jetstreamManager, type JsMsg } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';

const { NATS_URL, NATS_STREAM, NATS_CONSUMER, NATS_INBOX_PREFIX, DATABASE_URL } = process.env as Record<string, string>;
const [stream, name] = [NATS_STREAM!, NATS_CONSUMER!];

interface Place {
  readonly seq: number;
  /** The event's own id: the same sequence in another log has another one. */
  readonly id: string;
}

interface Event {
  readonly id: string;
  readonly op?: string;
  readonly key?: { readonly token_id: string };
  readonly after?: { readonly price?: string };
  readonly data?: { readonly phase?: string };
}

const database = new pg.Client(DATABASE_URL);
await database.connect();
await database.query(`
  CREATE TABLE IF NOT EXISTS log_places (consumer text PRIMARY KEY, seq bigint NOT NULL, id text NOT NULL);
  CREATE TABLE IF NOT EXISTS price_changes (token text PRIMARY KEY, changes bigint NOT NULL, price numeric)`);

const { host, username, password, protocol } = new URL(NATS_URL!);
const connection = await connect({
  servers: host,
  user: username,
  pass: password,
  inboxPrefix: NATS_INBOX_PREFIX!,
  maxReconnectAttempts: -1,
  ...(protocol === 'tls:' && { tls: {} }),
});
const manager = await jetstreamManager(connection, { checkAPI: false });
const consumer = await manager.jetstream().consumers.get(stream, name);
let stopping = false;
process.once('SIGTERM', () => (stopping = true));

while (!stopping) await readFromPlace();
await connection.drain();
await database.end();

/** Reads from where the database says, until a message or an answer has been lost on the way: then it is called again. */
async function readFromPlace(): Promise<void> {
  const { rows } = await database.query<{ seq: string; id: string }>('SELECT seq, id FROM log_places WHERE consumer = $1', [name]);
  let place = rows[0] && { seq: Number(rows[0].seq), id: rows[0].id };
  // The last event that was applied is to come once more: it proves that nothing is missing behind it. Without one, the
  // consumer goes back to what it has not acknowledged.
  if (!(await answer(() => manager.consumers.reset(stream, name, place?.seq)))) return;
  let proof = place;
  let delivery = 0;
  while (!stopping) {
    const messages = await answer(fetch);
    // Numbers of deliveries have no holes: one that is missing was lost with a connection, and would come again later, too late.
    if (!messages || messages.some((message) => message.info.deliverySequence !== ++delivery)) return;
    if (proof && messages.length > 0) {
      const first = messages.shift()!;
      if (first.seq !== proof.seq || first.json<Event>().id !== proof.id)
        throw new Error(
          `the log does not go on where this reader was (sequence ${proof.seq}): empty price_changes and log_places, and read it anew`,
        );
      proof = undefined;
      first.ack();
    }
    // What is acknowledged late, or whose acknowledgement is lost, comes again: sequences rise, or it is known already.
    const fresh: JsMsg[] = [];
    for (const message of messages) if (message.seq > ((fresh.at(-1) ?? place)?.seq ?? 0)) fresh.push(message);
    if (fresh.length > 0) place = await apply(fresh, place);
    for (const message of messages) message.ack();
  }
}

async function fetch(): Promise<JsMsg[]> {
  const messages: JsMsg[] = [];
  for await (const message of await consumer.fetch({ max_messages: 500, expires: 5_000 })) messages.push(message);
  return messages;
}

/** What the server says; undefined, a second later, when it says nothing, as while it is restarted. */
async function answer<T>(question: () => Promise<T>): Promise<T | undefined> {
  try {
    return await question();
  } catch (error) {
    process.stderr.write(`${String(error)}\n`);
    await setTimeout(1_000);
    return undefined;
  }
}

/** One transaction: the place, if it is still the one that was expected, and the result. */
async function apply(messages: readonly JsMsg[], from: Place | undefined): Promise<Place> {
  const last = messages.at(-1)!;
  const to = { seq: last.seq, id: last.json<Event>().id };
  await database.query('BEGIN');
  const moved = from
    ? await database.query('UPDATE log_places SET seq = $2, id = $3 WHERE consumer = $1 AND seq = $4', [name, to.seq, to.id, from.seq])
    : await database.query('INSERT INTO log_places VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [name, to.seq, to.id]);
  if (moved.rowCount !== 1) throw new Error('another instance of this reader is at work');
  for (const message of messages) await applyOne(message.subject, message.json<Event>());
  await database.query('COMMIT');
  return to;
}

async function applyOne(subject: string, { op, key, after, data }: Event): Promise<void> {
  // Another history begins, or there is a gap: a copy of all rows follows, and replaces what is known.
  if (subject.endsWith('._mark.gap') || (subject.endsWith('._mark.snapshot') && data?.phase === 'begin'))
    await database.query('TRUNCATE price_changes');
  if (key && (op === 'insert' || op === 'update' || op === 'read'))
    await database.query(
      `INSERT INTO price_changes AS p VALUES ($1, 1, $2)
       ON CONFLICT (token) DO UPDATE SET changes = p.changes + 1, price = coalesce(excluded.price, p.price)`,
      [key.token_id, after?.price],
    );
}

import { JetStreamApiError, nanos, whenServed, type ConsumerConfig, type ConsumerInfo, type JetStreamManager } from '../clients/nats.ts';
import { withoutOverlap } from '../log/jetstream-log.ts';
import type { Bounds, Seq } from '../log/event-log.ts';
import { HeadwaterError, messageOf, refused, usage } from '../runtime/errors.ts';

/** Marks a consumer as a team's; its value is the team's name. */
const teamKey = 'headwater.team';

const noSuchConsumer = 10014;

/** What a team is to read. */
export interface TeamConsumerOptions {
  readonly stream: string;
  readonly name: string;
  /** NATS subject filters. */
  readonly subjects: readonly string[];
  /** The first sequence it gets. */
  readonly from: Seq;
  /** So long the server waits for an acknowledgement before it sends an event again. */
  readonly ackWaitMs: number;
}

/** A team's consumer and how far it is. */
export interface TeamConsumer {
  readonly name: string;
  readonly subjects: readonly string[];
  /** Sequence of the last event before which everything has been acknowledged. */
  readonly acknowledged: Seq;
  /** Sequence of the last event that was sent to it. */
  readonly delivered: Seq;
  /** Events that it has not been sent yet. */
  readonly pending: number;
  /** Events that it has been sent, and has not acknowledged. */
  readonly unacknowledged: number;
  /** When it was last sent something, ISO 8601. */
  readonly lastActive: string | undefined;
  readonly created: string;
  /** The log no longer holds what comes after its last event: it may have missed some. */
  readonly trimmed: boolean;
}

/**
 * Subject filters with those of the marks that begin a copy of all rows, without which a team could not know that what it holds
 * is to be replaced; none covers another.
 */
export function withMarks(root: string, subjects: readonly string[]): readonly string[] {
  return withoutOverlap([...subjects, `${root}._mark.snapshot`, `${root}._mark.gap`]);
}

/**
 * Makes the durable pull consumer of a team.
 * @throws HeadwaterError `team_exists`, `consumer_of_others` (refused), `bad_subjects` (usage)
 */
export async function addTeamConsumer(jsm: JetStreamManager, options: TeamConsumerOptions): Promise<void> {
  const { stream, name } = options;
  await requireFree(jsm, stream, name);
  try {
    const config: Partial<ConsumerConfig> = {
      durable_name: name,
      // Not "all", also for the whole log: a consumer that begins at a sequence can be put back to it, and no further.
      deliver_policy: 'by_start_sequence',
      opt_start_seq: options.from,
      ack_policy: 'explicit',
      ack_wait: nanos(options.ackWaitMs),
      // What is fetched at once may be large; beyond this the server sends nothing more until something is acknowledged.
      max_ack_pending: 20_000,
      filter_subjects: [...options.subjects],
      metadata: { [teamKey]: name },
    };
    await whenServed(() => jsm.consumers.add(stream, config));
  } catch (error) {
    if (error instanceof JetStreamApiError)
      throw usage('bad_subjects', `NATS refuses the consumer of ${name}: ${messageOf(error)}`, 'correct --subjects');
    throw error;
  }
}

/** Is there no consumer of this name yet? Throws when there is. */
export async function requireFree(jsm: JetStreamManager, stream: string, name: string): Promise<void> {
  const found = await find(jsm, stream, name);
  if (!found) return;
  requireTeams(found, name);
  throw refused(
    'team_exists',
    `the team ${name} has a consumer already, at sequence ${found.ack_floor.stream_seq}`,
    `\`headwater consumers remove ${name}\` forgets its place in the log; then add it anew`,
  );
}

/** The consumers of all teams, by name. */
export async function listTeamConsumers(jsm: JetStreamManager, stream: string, bounds: Bounds): Promise<readonly TeamConsumer[]> {
  const found: TeamConsumer[] = [];
  for await (const info of jsm.consumers.list(stream))
    if (info.config.metadata?.[teamKey] !== undefined) found.push(describe(info, bounds));
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Removes a team's consumer, and with it its place in the log. False when it has none.
 * @throws HeadwaterError `consumer_of_others` (refused)
 */
export async function removeTeamConsumer(jsm: JetStreamManager, stream: string, name: string): Promise<boolean> {
  const found = await find(jsm, stream, name);
  if (!found) return false;
  requireTeams(found, name);
  return whenServed(() => jsm.consumers.delete(stream, name));
}

function describe({ name, config, ack_floor, delivered, ...info }: ConsumerInfo, { first }: Bounds): TeamConsumer {
  return {
    name,
    subjects: config.filter_subjects ?? (config.filter_subject ? [config.filter_subject] : []),
    acknowledged: ack_floor.stream_seq,
    delivered: delivered.stream_seq,
    pending: info.num_pending,
    unacknowledged: info.num_ack_pending,
    lastActive: (delivered as unknown as { last_active?: string }).last_active,
    created: info.created,
    trimmed: ack_floor.stream_seq + 1 < first,
  };
}

function requireTeams({ config }: ConsumerInfo, name: string): void {
  if (config.metadata?.[teamKey] === undefined)
    throw refused('consumer_of_others', `the consumer ${name} was not made by \`headwater consumers add\``, 'choose another name');
}

async function find(jsm: JetStreamManager, stream: string, name: string): Promise<ConsumerInfo | undefined> {
  try {
    return await whenServed(() => jsm.consumers.info(stream, name));
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === noSuchConsumer) return undefined;
    throw new HeadwaterError('no_answer', `NATS cannot tell of the consumer ${name}: ${messageOf(error)}`, { cause: error });
  }
}

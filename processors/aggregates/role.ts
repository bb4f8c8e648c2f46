import type { RedisClient } from '../../pipeline/clients/redis.ts';
import type { EventLog, Seq } from '../../pipeline/log/event-log.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Role, RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { startWork, type Work } from '../../pipeline/runtime/tasks.ts';
import type { Offset } from '../../pipeline/runner/state-store.ts';
import { isCurrent, plainHash } from './definition.ts';
import type { AggregateMetrics } from './metrics.ts';
import type { Definition } from './model.ts';
import { namespaceOf } from './store/keys.ts';
import { forgetChanges } from './store/mend.ts';
import { entryText, processorName, Registry, type Entry, type Namespace } from './store/registry.ts';

/** A definition at work. */
export interface DefinitionRunner extends Role {
  offset(): Promise<Offset | undefined>;
  /** Sees to it that each event that the state lacks has its letter: operators may have redriven or dropped it in the state that was served so far. */
  completeLetters(): Promise<void>;
}

export interface AggregatesParts {
  readonly redis: RedisClient;
  readonly eventLog: EventLog;
  readonly metrics: Pick<AggregateMetrics, 'definitions'>;
  /** The definitions in force; undefined when they have not changed since they were last asked for. */
  readonly definitions: () => Promise<ReadonlyMap<string, Definition> | undefined>;
  /** `building`: another one is served under its name. */
  readonly start: (definition: Definition, building: boolean) => DefinitionRunner;
  /** Removes everything of a namespace, until the signal fires. */
  readonly remove: (namespace: Namespace, signal: AbortSignal) => Promise<void>;
  /** How often the catalogue and the registry are looked at (default 2 s). */
  readonly lookEveryMs?: number;
  /** How long readers may still use what is served no more (default 30 s). */
  readonly graceMs?: number;
}

interface Running {
  readonly definition: Definition;
  readonly runner: DefinitionRunner;
  /** It has been started beside the one that is served. */
  readonly building: boolean;
  /** It has been in the registry: when something else is there now, another instance has put it there. */
  served: boolean;
  /** Where the log ended when it was last looked at. */
  head: Seq | undefined;
}

const idOf = ({ name, hash }: Namespace): string => `${name}:${hash}`;

/**
 * Runs each definition by itself, and says in the registry which one of each name is read from: a changed definition is built beside the
 * one before, and takes its place once it has caught up with the log. Of instances that want different ones the one that came last
 * has its way, and the others leave it alone.
 */
export class Aggregates implements Role {
  readonly name = processorName;
  readonly #work: Work;
  readonly #context: RoleContext;
  readonly #parts: AggregatesParts;
  readonly #registry: Registry;
  readonly #stopping = new AbortController();
  /** By `<name>:<hash>`. */
  readonly #running = new Map<string, Running>();
  #wanted: ReadonlyMap<string, Definition> = new Map();
  /** The same, each with the namespace that is served if its state has been made anew. */
  #current: ReadonlyMap<string, Definition> = new Map();
  /** Names of which another instance serves another definition. */
  readonly #yielded = new Set<string>();
  /** Namespaces that nobody wants, and since when. */
  readonly #unwanted = new Map<string, number>();
  #removing: Promise<void> | undefined;
  /** What is served and no longer defined is still to be taken out of the registry. */
  #changed = false;
  #away = false;

  constructor(context: RoleContext, parts: AggregatesParts) {
    this.#context = context;
    this.#parts = parts;
    this.#registry = new Registry(parts.redis);
    this.#work = startWork(context.signal, this.#stopping, () => this.#run());
  }

  get done(): Promise<void> {
    return this.#work.done;
  }

  stop(): Promise<void> {
    return this.#work.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    try {
      while (!signal.aborted) {
        await this.#look();
        await pause(this.#parts.lookEveryMs ?? 2_000, signal);
      }
    } finally {
      await Promise.all([...this.#running.keys()].map((id) => this.#end(id)));
      await this.#removing;
    }
  }

  /** Looks at the catalogue and at the registry, and does what follows. */
  async #look(): Promise<void> {
    const { health, log } = this.#context;
    try {
      const definitions = await this.#parts.definitions();
      if (definitions) this.#take(definitions);
      const entries = await this.#registry.entries();
      await this.#withdraw(entries);
      this.#current = new Map([...this.#wanted].map(([name, definition]) => [name, asServed(definition, entries.get(name))]));
      for (const definition of this.#current.values()) await this.#attend(definition, entries.get(definition.name));
      await this.#settle(await this.#registry.entries());
      if (this.#away) log.info('aggregates: the registry is back');
      this.#away = false;
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      health.report(this.name, false, 'the registry is not available');
      if (!this.#away) log.warn({ error: messageOf(error) }, 'aggregates: the registry is not available, trying again until it is');
      this.#away = true;
    }
  }

  #take(definitions: ReadonlyMap<string, Definition>): void {
    this.#wanted = definitions;
    this.#yielded.clear();
    this.#changed = true;
  }

  /** What the catalogue no longer has is no longer served. */
  async #withdraw(entries: ReadonlyMap<string, Entry>): Promise<void> {
    if (!this.#changed) return;
    for (const [name, { text }] of entries) {
      if (this.#wanted.has(name)) continue;
      if (await this.#registry.exchange(name, text, undefined))
        this.#context.log.info(`aggregates: ${name} is no longer defined, and is removed`);
    }
    this.#changed = false;
  }

  /** Sees to it that a definition is at work, and that it is served as soon as it may be. */
  async #attend(definition: Definition, entry: Entry | undefined): Promise<void> {
    const { name, hash } = definition;
    const isOthers = entry !== undefined && entry.text !== entryText(definition);
    if (isOthers && (this.#yielded.has(name) || this.#isServed(definition))) return this.#yield(name);
    const other = entry && entry.hash !== hash ? entry : undefined;
    this.#yielded.delete(name);
    // Until this one has caught up readers have the one before, and that must not stand still.
    if (other && isCurrent(other.definition, other.hash)) await this.#ensure(other.definition, false);
    const running = await this.#ensure(definition, other !== undefined);
    if (other && !(await this.#caughtUp(running))) return;
    if (other) {
      await running.runner.completeLetters();
      // What has been told of the other one goes on in no way that anybody could follow.
      await forgetChanges(this.#parts.redis, namespaceOf(name, hash), (await this.#parts.eventLog.bounds()).last);
    }
    if (entry?.text !== entryText(definition) && !(await this.#registry.exchange(name, entry?.text, definition))) return;
    running.served = true;
    if (other)
      this.#context.log.info(`aggregates: ${name} has caught up as it is defined now, and takes the place of its former definition`);
  }

  /** Has this instance had this very definition in the registry? */
  #isServed(definition: Definition): boolean {
    const running = this.#running.get(idOf(definition));
    return running?.served === true && entryText(running.definition) === entryText(definition);
  }

  #yield(name: string): void {
    if (!this.#yielded.has(name))
      this.#context.log.warn(
        `aggregates: another instance serves another definition of ${name}; this one leaves it alone until its catalogue changes or it is started again`,
      );
    this.#yielded.add(name);
  }

  /**
   * The runner of a definition: the one that is at work, or a new one. One that has taken its place is started again as the one that is served: under
   * the name of those before it, and ready to redrive their letters.
   */
  async #ensure(definition: Definition, building: boolean): Promise<Running> {
    const id = idOf(definition);
    const there = this.#running.get(id);
    if (!there) await this.#finishRemoval(definition);
    await this.#registry.announce(definition);
    if (there?.building === building && JSON.stringify(there.definition) === JSON.stringify(definition)) return there;
    // What is shown or how long it is kept has changed, not what is stored.
    await this.#end(id);
    // Of each name there is one that is served, and one that is built: whose place it takes has no more to do.
    for (const [other, running] of this.#running)
      if (running.definition.name === definition.name && running.building === building) await this.#end(other);
    const runner = this.#parts.start(definition, building);
    // The others go on without it; its health says that it does not.
    runner.done.catch((error: unknown) => this.#context.log.error(`aggregates: ${definition.name} has stopped: ${messageOf(error)}`));
    const running = { definition, runner, building, served: false, head: undefined };
    this.#running.set(id, running);
    return running;
  }

  /** What is left of a namespace when its removal was interrupted must not be gone on from. */
  async #finishRemoval({ name, hash }: Namespace): Promise<void> {
    await this.#removing;
    if (!(await this.#registry.isCondemned({ name, hash }))) return;
    await this.#parts.remove({ name, hash }, this.#stopping.signal);
    this.#stopping.signal.throwIfAborted();
    await this.#registry.forget({ name, hash });
  }

  async #end(id: string): Promise<void> {
    const running = this.#running.get(id);
    if (!running) return;
    this.#running.delete(id);
    await running.runner.stop();
    this.#context.health.remove(running.runner.name);
  }

  /** Has it come to where the log ended at the last look? */
  async #caughtUp(running: Running): Promise<boolean> {
    const bounds = await this.#parts.eventLog.bounds();
    const offset = await running.runner.offset();
    const before = running.head;
    running.head = bounds.last;
    return before !== undefined && offset?.epoch === bounds.epoch && offset.seq >= before;
  }

  /** Ends and removes what nobody needs any more. */
  async #settle(entries: ReadonlyMap<string, Entry>): Promise<void> {
    const isServed = ({ name, hash }: Namespace): boolean => entries.get(name)?.hash === hash;
    for (const [id, { definition }] of this.#running) {
      const wanted = this.#yielded.has(definition.name) ? undefined : this.#current.get(definition.name);
      if (!wanted || (wanted.hash !== definition.hash && !isServed(definition))) await this.#end(id);
    }
    const building = [...this.#current.values()].filter((definition) => !isServed(definition)).length;
    this.#parts.metrics.definitions(this.#wanted.size, building);
    this.#context.health.report(this.name, true, `${this.#wanted.size} definitions, ${building} of them being built`);
    await this.#collect(isServed);
  }

  /** Removes namespaces that nobody works on and nothing is served from, once readers are done with them: one at a time, in the background. */
  async #collect(isServed: (namespace: Namespace) => boolean): Promise<void> {
    const now = performance.now();
    const idle = new Map<string, Namespace>();
    for (const namespace of await this.#registry.namespaces()) {
      if (isServed(namespace) || this.#running.has(idOf(namespace)) || (await this.#registry.isLeased(namespace))) continue;
      if (!(await this.#registry.isKept(namespace))) idle.set(idOf(namespace), namespace);
    }
    for (const id of this.#unwanted.keys()) if (!idle.has(id)) this.#unwanted.delete(id);
    for (const [id, namespace] of idle) {
      if (!this.#unwanted.has(id)) this.#unwanted.set(id, now);
      if (now - this.#unwanted.get(id)! >= (this.#parts.graceMs ?? 30_000)) this.#removing ??= this.#remove(namespace);
    }
  }

  async #remove(namespace: Namespace): Promise<void> {
    const { log } = this.#context;
    const { signal } = this.#stopping;
    try {
      await this.#registry.condemn(namespace);
      await this.#parts.remove(namespace, signal);
      if (signal.aborted) return;
      await this.#registry.forget(namespace);
      log.info(`aggregates: what was kept for a former definition of ${namespace.name} has been removed`);
    } catch (error) {
      log.debug({ error: messageOf(error) }, `aggregates: a former definition of ${namespace.name} could not be removed yet`);
    } finally {
      this.#removing = undefined;
    }
  }
}

/** A definition with the hash under which its state is served: that of a rebuild, if there was one. */
function asServed(definition: Definition, entry: Entry | undefined): Definition {
  return entry && plainHash(entry.hash) === definition.hash ? { ...definition, hash: entry.hash } : definition;
}

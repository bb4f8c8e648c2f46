import { expect } from 'chai';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { DeadLetter } from '../../../pipeline/runner/dead-letters.ts';
import type { Role, RoleContext } from '../../../pipeline/runtime/lifecycle.ts';
import { definitionsOf } from '../../../processors/aggregates/definition.ts';
import { aggregateMetrics } from '../../../processors/aggregates/metrics.ts';
import type { Definition } from '../../../processors/aggregates/model.ts';
import { aggregateRebuilds } from '../../../processors/aggregates/rebuild.ts';
import { startDefinition } from '../../../processors/aggregates/runner.ts';
import { aggregateKeys, namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { Registry } from '../../../processors/aggregates/store/registry.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { FaultyLog } from '../../support/faulty-log.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { redriveWorld, type RedriveWorld } from '../../support/redrive-world.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { idText, rowEvent, tickEvent } from '../../support/row-events.ts';
import { temporaryDirectory } from '../../support/servers.ts';
import { foldedTo, startAggregates, untilFolded, type RunningOptions } from './support/running.ts';
import { storedWindows } from './support/stored-windows.ts';

const price = '{ table: public.prices, by: [chain], value: price, of: rows, windows: [1h], functions: [count, sum] }';
const perMinute = '{ table: public.prices, by: [chain], value: price, of: rows, windows: [1m], functions: [count, sum] }';
const changes = '{ table: public.prices, by: [chain], value: price, of: changes, windows: [1h], functions: [count, sum] }';

const yaml = (aggregates: Readonly<Record<string, string>>): string =>
  `aggregates:\n${Object.entries(aggregates)
    .map(([name, text]) => `  ${name}: ${text}\n`)
    .join('')}${Object.keys(aggregates).length === 0 ? '  {}\n' : ''}`;

const definitionOf = (text: string, name = 'price'): Definition => definitionsOf(parseCatalog(yaml({ [name]: text }), 'c.yaml')).get(name)!;

const event = (n: number, id = n): NewEvent => rowEvent(n, 'insert', { key: { id }, after: { id, chain: `c${n % 2}`, price: '1.5' } });
const events = (from: number, to: number): NewEvent[] => Array.from({ length: to - from + 1 }, (_, i) => event(from + i));

/** The index of the hour that the events are of. */
const hour = Date.UTC(2026, 10, 22) / 3_600_000;

describe('aggregates role', () => {
  let redis: RedisDatabase;
  let log: FaultyLog;
  let directory: string;
  let file: string;
  const roles: Role[] = [];
  beforeEach(async () => {
    redis = await redisDatabase(3);
    log = new FaultyLog();
    directory = temporaryDirectory();
    file = join(directory, 'catalog.yaml');
  });
  afterEach(async () => {
    await Promise.all(roles.splice(0).map((role) => role.stop()));
    await redis.close();
    rmSync(directory, { recursive: true });
  });

  function start(aggregates: Readonly<Record<string, string>>, more: Partial<RunningOptions> = {}): Role {
    const text = yaml(aggregates);
    if (more.file !== undefined) writeFileSync(more.file, text);
    const role = startAggregates({ redis, eventLog: log, catalog: parseCatalog(text, 'c.yaml'), ...more });
    roles.push(role);
    return role;
  }
  const counts = async (definition: Definition): Promise<Record<string, number>> =>
    Object.fromEntries(
      (await storedWindows(redis.client, definition)).map(({ level, group, index, count }) => [`${level} ${group} ${index}`, count]),
    );
  const total = async (definition: Definition): Promise<number> =>
    Object.values(await counts(definition)).reduce((sum, count) => sum + count, 0);
  const served = async (): Promise<Record<string, string>> =>
    Object.fromEntries([...(await new Registry(redis.client).entries())].map(([name, { hash }]) => [name, hash]));
  const keysOf = async ({ name, hash }: Definition): Promise<number> =>
    (await redis.client.keys(`${namespaceOf(name, hash).prefix}:*`)).length;
  const hourly = definitionOf(price);
  const minutely = definitionOf(perMinute);

  it('serves a definition at once, from the oldest event of the log, then live', async () => {
    log.add(...events(1, 100));
    start({ price });
    await untilFolded(redis, [hourly], 100);
    expect(await counts(hourly)).to.deep.equal({ [`1h ["c0"] ${hour}`]: 50, [`1h ["c1"] ${hour}`]: 50 });
    expect(await served()).to.deep.equal({ price: hourly.hash });
    log.add(...events(101, 110));
    await untilFolded(redis, [hourly], 110);
    expect(await total(hourly)).to.equal(110);
  });

  it('reads only its table, and moves on with the ticks', async () => {
    start({ price });
    log.add(rowEvent(1, 'insert', { table: 'others', key: { id: 1 }, after: { chain: 'c', price: '1' } }), event(2), tickEvent(3));
    await untilFolded(redis, [hourly], 3);
    expect(await total(hourly)).to.equal(1);
  });

  it('reads a table whose schema has a dot in its name', async () => {
    const text = price.replace('public.prices', 'odd.sch.prices');
    start({ price: text });
    const [definition, after] = [definitionOf(text), { chain: 'c', price: '1' }];
    log.add(
      rowEvent(1, 'insert', { schema: 'odd.sch', key: { id: 1 }, after }),
      rowEvent(2, 'insert', { schema: 'odd', key: { id: 2 }, after }),
    );
    log.add(tickEvent(3));
    await untilFolded(redis, [definition], 3);
    expect(await total(definition)).to.equal(1);
  });

  describe('while the catalogue changes', () => {
    let context: RoleContext;
    beforeEach(() => {
      context = roleContext();
    });

    it('adds what is new and removes what is gone, with everything it kept', async () => {
      log.add(...events(1, 50));
      start({ price }, { file, context });
      await untilFolded(redis, [hourly], 50);
      const other = definitionOf(changes, 'other');
      writeFileSync(file, yaml({ other: changes }));
      await until(async () => (await served())['other'] === other.hash);
      await untilFolded(redis, [other], 50);
      expect(await total(other)).to.equal(50);
      await until(async () => (await keysOf(hourly)) === 0);
      expect(await served()).to.deep.equal({ other: other.hash });
      expect(await new Registry(redis.client).namespaces()).to.deep.equal([{ name: 'other', hash: other.hash }]);
      expect(context.health.checks.map(({ name, ok }) => [name, ok])).to.deep.equal([
        ['aggregates', true],
        ['aggregates.other', true],
      ]);
    });

    it('serves the former definition, which goes on, until the changed one has caught up', async () => {
      log.add(...events(1, 50));
      start({ price }, { file, context });
      await untilFolded(redis, [hourly], 50);
      // Nobody else may work on the new one, so it cannot catch up yet.
      const blocked = namespaceOf('price', minutely.hash).lease('aggregates');
      await redis.client.set(blocked, 'another instance');
      writeFileSync(file, yaml({ price: perMinute }));
      await until(() => context.health.checks.some(({ name }) => name === `aggregates.price.${minutely.hash}`));
      log.add(...events(51, 60));
      await untilFolded(redis, [hourly], 60);
      expect(await served()).to.deep.equal({ price: hourly.hash });
      await redis.client.del(blocked);
      await until(async () => (await served())['price'] === minutely.hash);
      expect(await foldedTo(redis, minutely)).to.equal(60);
      expect(await total(minutely)).to.equal(60);
      await until(async () => (await keysOf(hourly)) === 0);
    });

    it('takes a retention or functions that change for the same state', async () => {
      log.add(...events(1, 50));
      start({ price }, { file, context });
      await untilFolded(redis, [hourly], 50);
      writeFileSync(
        file,
        yaml({ price: price.replace('functions: [count, sum]', 'functions: [max], sliding: [2h], retention: { 1h: 3d }') }),
      );
      await until(async () => (await new Registry(redis.client).entries()).get('price')?.definition.functions[0] === 'max');
      log.add(...events(51, 52));
      await untilFolded(redis, [hourly], 52);
      expect(await total(hourly)).to.equal(52);
      expect(log.reads.filter((from) => from === 1).length, 'readings from the beginning').to.equal(1);
    });

    it('stays with the definitions of before when the file cannot be used, and says so once', async () => {
      const lines: string[] = [];
      const { log: logger } = context;
      logger.error = (line: unknown) => void lines.push(String(line));
      start({ price }, { file, context });
      await untilFolded(redis, [hourly], 0);
      writeFileSync(file, 'aggregates: { price: { table: prices } }');
      await until(() => lines.length > 0);
      log.add(...events(1, 5));
      await untilFolded(redis, [hourly], 5);
      expect(await served()).to.deep.equal({ price: hourly.hash });
      expect(lines.length).to.equal(1);
      expect(lines[0]).to.match(/the definitions of before stay in force: .*price → table is "prices"/s);
    });

    it('goes on where it was when it is started again, with the former definition served until the changed one has caught up', async () => {
      log.add(...events(1, 50));
      await start({ price }).stop();
      start({ price });
      await untilFolded(redis, [hourly], 50);
      await roles.pop()!.stop();
      log.add(...events(51, 60));
      start({ price: perMinute });
      await until(async () => (await served())['price'] === minutely.hash);
      expect(await total(minutely)).to.equal(60);
    });
  });

  describe('and its dead letters', () => {
    let world: RedriveWorld;
    beforeEach(async () => {
      world = await redriveWorld();
      ({ log } = world);
      log.add(...events(1, 10));
    });
    afterEach(() => world.close());
    const tick = (): void => log.add(tickEvent(log.head + 1));
    const poison = async (n: number): Promise<void> => {
      world.log.garbled.add(log.head + 1);
      log.add(event(n));
      await world.buried('aggregates.price');
    };

    it('are called alike whatever its state is called, and redriven in the state that is served', async () => {
      start({ price }, { deadLetters: world.deadLetters });
      await untilFolded(redis, [hourly], 10);
      await poison(11);
      const context = roleContext();
      const [rebuild] = await aggregateRebuilds(context, { redis: redis.client, eventLog: log, deadLetters: world.deadLetters });
      const flipping = rebuild!.rebuild({ flip: true });
      const timer = setInterval(tick, 50);
      await flipping.finally(() => clearInterval(timer));
      const anew = (await new Registry(redis.client).entries()).get('price')!.definition;
      expect(anew.hash).to.not.equal(hourly.hash);
      // The state that was made anew has the event.
      expect(await world.redrive('aggregates.price', tick)).to.deep.equal(['11 unneeded']);
      const seq = log.head + 1;
      await poison(12);
      expect(await total(anew)).to.equal(11);
      expect(await world.redrive('aggregates.price', tick)).to.deep.equal([`${seq} applied`]);
      expect(await total(anew)).to.equal(12);
    });

    it('are those of a changed definition once that is served, also when they were redriven in the former one meanwhile', async () => {
      const context = roleContext();
      start({ price }, { file, context, deadLetters: world.deadLetters });
      await untilFolded(redis, [hourly], 10);
      await poison(11);
      // The changed definition cannot apply it, either, and is interrupted while it is built.
      world.log.garbled.add(11);
      const building = startDefinition(roleContext(), minutely, true, {
        redis: redis.client,
        eventLog: log,
        deadLetters: world.deadLetters,
        metrics: aggregateMetrics(roleContext().metrics),
      });
      await untilFolded(redis, [minutely], 11);
      await building.stop();
      world.log.garbled.clear();
      expect(await world.redrive('aggregates.price', tick)).to.deep.equal(['11 applied']);
      expect([await total(hourly), await total(minutely)]).to.deep.equal([11, 10]);

      writeFileSync(file, yaml({ price: perMinute }));
      await until(async () => (await served())['price'] === minutely.hash);
      await until(() => context.health.checks.map(({ name }) => name).join() === 'aggregates,aggregates.price');
      expect(await world.redrive('aggregates.price', tick)).to.deep.equal(['11 applied']);
      expect(await total(minutely)).to.equal(11);
    });
  });

  it('lets the instance that came last have its way, and the other one leaves the aggregate alone', async () => {
    log.add(...events(1, 20));
    start({ price });
    await untilFolded(redis, [hourly], 20);
    const later = start({ price: perMinute });
    await until(async () => (await served())['price'] === minutely.hash);
    await until(async () => (await keysOf(hourly)) === 0);
    log.add(...events(21, 30));
    await untilFolded(redis, [minutely], 30);
    await later.stop();
    expect(await served()).to.deep.equal({ price: minutely.hash });
    expect(await keysOf(hourly), 'keys of the former definition').to.equal(0);
  });

  it('does so too when the definitions differ in what is shown alone', async () => {
    log.add(...events(1, 10));
    start({ price });
    await untilFolded(redis, [hourly], 10);
    const shown = async (): Promise<string | undefined> =>
      (await new Registry(redis.client).entries()).get('price')?.definition.functions.join();
    await until(async () => (await shown()) === 'count,sum');
    start({ price: price.replace('[count, sum]', '[max]') });
    await until(async () => (await shown()) === 'max');
    for (let n = 0; n < 20; n++) {
      await sleep(10);
      expect(await shown()).to.equal('max');
    }
    log.add(...events(11, 12));
    await untilFolded(redis, [hourly], 12);
  });

  it('lets two instances share the work, and one take over what the other leaves', async () => {
    start({ price, other: changes });
    const second = start({ price, other: changes });
    const both = [hourly, definitionOf(changes, 'other')];
    log.add(...events(1, 20));
    await untilFolded(redis, both, 20);
    await roles.splice(roles.indexOf(second), 1)[0]!.stop();
    log.add(...events(21, 40));
    await untilFolded(redis, both, 40);
    expect([await total(both[0]!), await total(both[1]!)]).to.deep.equal([40, 40]);
  });

  for (const [what, text] of [
    ['rows', price],
    ['changes', changes],
  ] as const) {
    const again = definitionOf(text);
    const forgotten = async (): Promise<number> =>
      Number(await redis.client.get(aggregateKeys.forgotten(namespaceOf('price', again.hash).prefix)));
    const emptied = async (): Promise<void> => {
      log.add(...events(1, 50));
      start({ price: text });
      await untilFolded(redis, [again], 50);
      await roles.pop()!.stop();
      await redis.client.flushdb();
    };

    it(`lets everybody begin anew when ${what} are made again from a trimmed log, once`, async () => {
      await emptied();
      log.trim(41);
      start({ price: text });
      await untilFolded(redis, [again], 50);
      // Also those who had seen all fifty.
      expect(await forgotten()).to.equal(51);
      await roles.pop()!.stop();
      log.add(...events(51, 60));
      start({ price: text });
      await untilFolded(redis, [again], 60);
      expect(await forgotten()).to.equal(51);
    });

    it(`lets everybody go on when ${what} are made again from all of the log`, async () => {
      await emptied();
      start({ price: text });
      await untilFolded(redis, [again], 50);
      expect(await forgotten()).to.equal(0);
    });
  }

  it('fills an emptied Redis again from the log', async () => {
    log.add(...events(1, 50));
    start({ price });
    await untilFolded(redis, [hourly], 50);
    await redis.client.flushdb();
    log.add(...events(51, 60));
    await untilFolded(redis, [hourly], 60);
    await until(async () => (await served())['price'] === hourly.hash);
    expect(await total(hourly)).to.equal(60);
  });

  describe('when the log is no longer what it was', () => {
    const other = definitionOf(changes, 'other');
    beforeEach(async () => {
      log.add(...events(1, 50));
      const role = start({ price, other: changes });
      await untilFolded(redis, [hourly, other], 50);
      await role.stop();
    });

    it('makes rows anew from a trimmed log, and keeps changes, with a mark where some are missing', async () => {
      log.add(...events(51, 90));
      log.trim(71);
      start({ price, other: changes });
      await untilFolded(redis, [hourly, other], 90);
      expect([await total(hourly), await total(other)]).to.deep.equal([20, 70]);
      const gaps = await redis.client.lrange(aggregateKeys.gaps(namespaceOf('other', other.hash).prefix), 0, -1);
      const at = (n: number): number => (Date.UTC(2026, 10, 22) + n) * 1_000;
      expect(gaps.map((gap) => JSON.parse(gap) as unknown)).to.deep.equal([[at(50), at(71)]]);
    });

    it('makes rows anew of another epoch, and goes on with changes', async () => {
      log.add(...events(51, 60));
      log.epoch = 'another';
      log.epochStart = 56;
      start({ price, other: changes });
      await untilFolded(redis, [hourly, other], 60);
      expect([await total(hourly), await total(other)]).to.deep.equal([5, 55]);
    });

    it('leaves it to the operator when changes are ahead of the log, while the others go on', async () => {
      log = new FaultyLog();
      log.add(...events(1, 30));
      const context = roleContext();
      start({ price, other: changes }, { context });
      await until(() =>
        context.health.checks.some(({ name, ok, detail }) => name === 'aggregates.other' && !ok && /ends at 30/.test(detail)),
      );
      await until(async () => (await foldedTo(redis, hourly)) === 30);
      expect([await total(hourly), await total(other)]).to.deep.equal([30, 50]);
    });

    it('says what a definition that begins with a trimmed log is missing', async () => {
      log.trim(41);
      const late = definitionOf(changes, 'late');
      start({ late: changes });
      await untilFolded(redis, [late], 50);
      const gaps = await redis.client.lrange(aggregateKeys.gaps(namespaceOf('late', late.hash).prefix), 0, -1);
      expect(gaps.map((gap) => JSON.parse(gap) as unknown)).to.deep.equal([[0, (Date.UTC(2026, 10, 22) + 41) * 1_000]]);
    });
  });

  it('names the columns that its table does not have', async () => {
    const context = roleContext();
    const lines: string[] = [];
    context.log.warn = (line: unknown) => void lines.push(String(line));
    start({ price }, { context });
    const columns = ['id', 'chains', 'price'].map((name) => ({ name, type: 'text', key: name === 'id' }));
    const schema = { v: 1, id: idText(1), type: 'schema', table: 'public.prices', columns, at: '2026-11-22T00:00:00Z' };
    log.add({ subject: 'ev._schema.public.prices', data: Buffer.from(JSON.stringify(schema)) }, event(2));
    await untilFolded(redis, [hourly], 2);
    expect(lines).to.deep.equal(['aggregates.price: public.prices has no column chain; did you mean chains?']);
  });

  it('sends what it cannot apply to the dead letters under a name of its own, and counts what is in no window', async () => {
    const letters: DeadLetter[] = [];
    const context = roleContext();
    start({ price }, { context, deadLetters: { publish: (letter) => Promise.resolve(void letters.push(letter)) } });
    log.add(
      event(1),
      rowEvent(2, 'insert', { after: { chain: 'c1', price: '1' } }),
      rowEvent(3, 'insert', { key: { id: 3 }, after: { chain: 'c1', price: 'NaN' } }),
      event(4),
    );
    await untilFolded(redis, [hourly], 4);
    expect(await total(hourly)).to.equal(2);
    expect(letters.map(({ processor, seq, code }) => [processor, seq, code])).to.deep.equal([['aggregates.price', 2, 'no_primary_key']]);
    const text = await context.metrics.metrics();
    expect(text).to.match(/headwater_aggregates_left_out_total\{aggregate="price",reason="not_a_number"\} 1/);
    expect(text).to.match(/headwater_aggregates_definitions\{state="served"\} 1/);
    expect(text).to.match(/headwater_processor_dead_letters_total\{processor="aggregates.price"\} 1/);
  });
});

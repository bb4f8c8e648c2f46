import { connectRedis, closeRedis } from '../pipeline/clients/redis.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../pipeline/runner/runner.ts';
import { cacheProcessor } from '../processors/cache/fold.ts';
import { redisCache } from '../processors/cache/redis-cache.ts';
import { defaultCatalog } from '../schemas/catalog.ts';
import { MemoryLog } from './support/memory-log.ts';
import { rowEvent } from './support/row-events.ts';
import { roleContext } from './support/role-context.ts';
const N = Number(process.argv[2] ?? 200000), distinct = Number(process.argv[3] ?? N), E = Number(process.argv[4] ?? 1000);
const client = await connectRedis(process.env.REDIS_URL!, silentLogger());
await client.flushall();
const log = new MemoryLog();
const pad = 'x'.repeat(100);
const evs = Array.from({ length: N }, (_, i) => { const id = (i * 7919) % distinct; return rowEvent(i + 1, i < distinct ? 'insert' : 'update', { key: { token_id: `ethereum:0x${id}` }, after: { token_id: `ethereum:0x${id}`, price: '3009.43', n: i, pad } }); });
await log.append(evs, 0);
const p = cacheProcessor(defaultCatalog());
{ let t = performance.now(); let e = p.begin(); let n = 0; for (const ev of evs) { p.apply({ ...ev, seq: ++n }, e); if (n % E === 0) e = p.begin(); } let d = performance.now() - t; console.log('fold only', Math.round(N / d * 1000), 'ev/s', evs[0].data.length, 'B'); }
{ let e = p.begin(); for (let i = 0; i < E; i++) p.apply({ ...evs[i]!, seq: i + 1 }, e); let t = performance.now(); for (let i = 0; i < N / E; i++) redisCache.encode(e); let d = performance.now() - t; console.log('encode', Math.round(N / d * 1000)); }
const store = new RedisStateStore(client, 'cache', new RedisKeys(), redisCache);
const cpu0 = process.cpuUsage(); const info0 = await client.info('cpu');
const t = performance.now();
const role = startRunner(roleContext(), { eventLog: log, processor: p, store, deadLetters: { publish: async () => {} }, limits: { events: E } });
for (;;) { const o = await store.offset(); if (o?.seq === N) break; await new Promise(r => setTimeout(r, 20)); }
const d = performance.now() - t; const cpu = process.cpuUsage(cpu0); const info1 = await client.info('cpu');
const f = (s: string) => Number(/used_cpu_user:([\d.]+)/.exec(s)![1]) + Number(/used_cpu_sys:([\d.]+)/.exec(s)![1]);
console.log('whole', Math.round(N / d * 1000), 'ev/s; node cpu', ((cpu.user + cpu.system) / 1e6).toFixed(2), 's; redis cpu', (f(info1) - f(info0)).toFixed(2), 's; wall', (d/1000).toFixed(2));
await role.stop(); closeRedis(client);

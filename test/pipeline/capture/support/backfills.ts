import {
  followBackfills,
  orderBackfills,
  requestBackfill,
  type BackfillRequest,
  type Ordered,
} from '../../../../pipeline/capture/backfill/operations.ts';
import type { CopyOrder, CopyState } from '../../../../pipeline/capture/log-record.ts';
import type { Operation } from '../../../../pipeline/capture/operations.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { defaultCatalog } from '../../../../schemas/catalog.ts';
import type { CaptureFixture } from './fixture.ts';

/** What an operator does about backfills, on a fixture's servers. */
export interface Operator {
  readonly operation: Operation;
  ask(request: BackfillRequest): Promise<readonly string[]>;
  /** Asks, and waits for the end. */
  copy(table: string, rest?: Omit<BackfillRequest, 'names'>): Promise<CopyState>;
  order(order: CopyOrder['order'], table: string, rate?: number): Promise<Ordered>;
  /** Waits until some rows of a table are in the log. */
  rows(table: string, least: number): Promise<void>;
}

export function operatorOf(fixture: CaptureFixture, env: Readonly<Record<string, string>> = {}): Operator {
  const operation: Operation = {
    config: fixture.config({ NATS_URL: fixture.natsUrls.operator, ...env }),
    catalog: defaultCatalog(),
    log: silentLogger(),
    signal: new AbortController().signal,
    progress: () => undefined,
  };
  return {
    operation,
    ask: (request) => requestBackfill(operation, request),
    copy: async (table, rest = {}) => {
      await requestBackfill(operation, { ...rest, names: [table] });
      return (await followBackfills(operation, [table], () => undefined))[0]!;
    },
    order: async (order, table, rate) => (await orderBackfills(operation, { order, rate }, [table]))[0]!,
    rows: (table, least) =>
      fixture.until(async () => ((await fixture.record.copy(table))?.rows ?? 0) >= least, `${least} rows of ${table} in the log`),
  };
}

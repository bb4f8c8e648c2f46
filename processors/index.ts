import { aggregates } from './aggregates.ts';
import { alerts } from './alerts.ts';
import { cache } from './cache.ts';
import { notify } from './notify.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** All processors, one line each. */
export const processors: readonly ProcessorFactory[] = [cache, alerts, aggregates, notify];

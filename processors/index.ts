import { cache } from './cache.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** All processors, one line each. */
export const processors: readonly ProcessorFactory[] = [cache];

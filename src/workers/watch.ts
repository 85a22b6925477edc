/** What lets people watch a process: its heartbeat, always, and its metrics where the config gives them an address. Their library is loaded only then. */
import { hostname } from 'node:os';
import type { Sealer } from '../audit/seal.ts';
import type { Ctx } from '../commands/context.ts';
import type { Observe } from '../commands/observed.ts';
import type { Config } from '../config/load.ts';
import type { Db } from '../db/pool.ts';
import type { ProcessTable } from '../db/schema.ts';
import { type Said, troublesOf } from './health.ts';
import { type Heartbeat, startHeartbeat } from './heartbeat.ts';
import type { MetricsListener, MetricsListenerParts } from './metrics-listener.ts';
import { selfWatch } from './self-watch.ts';
import type { Workers } from './start-workers.ts';

interface WatchParts {
  /** `host:port` of the metrics; undefined: none. */
  readonly listen: string | undefined;
  readonly db: Db;
  readonly version: string;
  readonly targets: readonly string[];
  readonly config: Pick<Config, 'file' | 'targets' | 'entitlements' | 'roles' | 'server'>;
}

interface Watched {
  readonly ctx: Pick<Ctx, 'db' | 'log' | 'observe'>;
  readonly web: boolean;
  readonly workers: Workers | undefined;
  readonly queue: NonNullable<ProcessTable['queue']>;
  readonly sealer: Sealer;
  readonly health: MetricsListenerParts['health'];
}

export interface Watch {
  /** For the context of commands and workers; undefined when nobody counts. */
  readonly observe: Observe | undefined;
  /** Begins when everything else runs. */
  start(watched: Watched): Promise<void>;
  /** What people should look at: that they cannot watch, and what the process notices about itself. */
  warnings(): readonly Said[];
  /** What keeps it from working. */
  faults(): readonly Said[];
  close(): Promise<void>;
}

/** Prepares it; nothing listens or beats before `start`. */
export async function openWatch({ listen, db, version, targets, config }: WatchParts): Promise<Watch> {
  let workers: Workers | undefined;
  let heartbeat: Heartbeat | undefined;
  let listener: MetricsListener | undefined;
  const metrics =
    listen === undefined ? undefined : (await import('./metrics.ts')).createMetrics({ db, version, targets, running: () => ({ workers, heartbeat }) });
  const { instance } = config.server;
  const host = (instance ?? hostname()).slice(0, 200);
  const self = await selfWatch(config, { host, pid: process.pid, own: instance !== undefined });
  const warnings = (): Said[] => {
    const message = listener?.trouble();
    return [...(message ? [{ code: 'metrics_unavailable', message }] : []), ...self.warnings()];
  };
  const faults = (): Said[] => {
    const fault = heartbeat?.fault();
    return fault ? [fault] : [];
  };
  return {
    observe: metrics?.observe,
    async start({ ctx, web, workers: given, queue, sealer, health }) {
      workers = given;
      heartbeat = startHeartbeat({
        ctx,
        version,
        web,
        workers,
        queue,
        self,
        host,
        troubles: () => [...troublesOf(sealer, given), ...warnings()].map((said) => said.message),
      });
      if (metrics && listen !== undefined)
        listener = await (await import('./metrics-listener.ts')).openMetricsListener({ metrics, health, listen, log: ctx.log });
    },
    warnings,
    faults,
    async close() {
      await Promise.all([listener?.close(), heartbeat?.stop()]);
    },
  };
}

/**
 * `halligan reap`: a second, independent hand beside a target. It ends what is over there, and needs neither Halligan nor
 * its database nor its queue: it reads our marker and the end that stands on each object, with rights of its own. With it
 * there is a bound on what outlives a grant even when Halligan is dead.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { z } from 'zod';
import { readSecret } from '../config/secrets.ts';
import type { TargetOptions } from '../domain/provider.ts';
import type { Reaped } from './reaped.ts';

export interface ReapOptions {
  /** A YAML file with a `targets:` block, each as in Halligan's config, but with the reaper's own account. */
  readonly targets: string;
  /** One round, then leave. */
  readonly once?: boolean;
  /** From the beginning of a round to that of the next; 30 unless said. */
  readonly everySeconds?: number;
  /** Where the lines go; standard output unless said. */
  readonly say?: (line: string) => void;
  /** Ends the rounds, as SIGTERM does. */
  readonly signal?: AbortSignal;
}

/** One target takes no longer, so that the next round begins in time. */
const roundSeconds = 50;

/** A target and how to end what is over there. */
interface Field {
  readonly name: string;
  readonly kind: string;
  reap(signal: AbortSignal): Promise<Reaped>;
}

/** Runs rounds until it is told to stop; one with `once`. Gives the exit code: 0 when the last round had no fault. Each target's round is one JSON line, when there is something to tell. */
export async function reapCommand(options: ReapOptions): Promise<number> {
  const say = options.say ?? ((line: string) => void process.stdout.write(`${line}\n`));
  let fields: Field[];
  try {
    fields = await readFields(options.targets);
  } catch (error) {
    process.stderr.write(`halligan reap: ${options.targets}: ${(error as Error).message}\n`);
    return 1;
  }
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, stop);
  options.signal?.addEventListener('abort', stop, { once: true });
  if (options.signal?.aborted) stop();
  try {
    for (;;) {
      const next = Date.now() + (options.everySeconds ?? 30) * 1_000;
      const well = await round(fields, say, options.once ?? false);
      if (options.once || stopping.signal.aborted) return well ? 0 : 1;
      await sleep(Math.max(0, next - Date.now()), undefined, { signal: stopping.signal }).catch(() => undefined);
      if (stopping.signal.aborted) return well ? 0 : 1;
    }
  } finally {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.removeListener(name, stop);
  }
}

/** All targets at once, so that one that hangs delays none. */
async function round(fields: readonly Field[], say: (line: string) => void, always: boolean): Promise<boolean> {
  const results = await Promise.all(
    fields.map(async (field) => {
      const reaped = await field
        .reap(AbortSignal.timeout(roundSeconds * 1_000))
        .catch((error: unknown): Reaped => ({ ended: [], sessionsCut: 0, notes: [], faults: [`not foreseen: ${(error as Error).message}`] }));
      if (always || reaped.ended.length > 0 || reaped.faults.length > 0)
        say(JSON.stringify({ at: new Date().toISOString(), target: field.name, kind: field.kind, ...reaped }));
      return reaped.faults.length === 0;
    }),
  );
  return results.every(Boolean);
}

const fileSchema = z.strictObject({ targets: z.record(z.string(), z.looseObject({ kind: z.string() })) });

/** Only the kinds that the file names are loaded. */
async function readFields(file: string): Promise<Field[]> {
  const parsed = fileSchema.safeParse(parse(await readFile(file, 'utf8')));
  if (!parsed.success) throw new Error(parsed.error.issues.map(({ path, message }) => `${path.join('.') || 'the file'}: ${message}`).join('; '));
  const folder = dirname(file);
  const options: TargetOptions = { readSecret: (ref) => readSecret('file' in ref && !ref.file.startsWith('/') ? { file: join(folder, ref.file) } : ref) };
  const targets = Object.entries(parsed.data.targets);
  if (targets.length === 0) throw new Error('it names no target');
  return Promise.all(targets.map(([name, { kind, ...block }]) => fieldOf(name, kind, block, options)));
}

async function fieldOf(name: string, kind: string, block: Record<string, unknown>, options: TargetOptions): Promise<Field> {
  const checked = <T>(schema: z.ZodType<T>, value: unknown): T => {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    throw new Error(result.error.issues.map(({ path, message }) => `targets.${[name, ...path].join('.')}: ${message}`).join('; '));
  };
  if (kind === 'kubernetes-rbac') {
    const [{ targetSchema }, { reapKubernetes }] = await Promise.all([import('../providers/kubernetes-rbac/config.ts'), import('./kubernetes.ts')]);
    const config = checked(targetSchema, block);
    return { name, kind, reap: (signal) => reapKubernetes(name, config, options, signal) };
  }
  if (kind === 'postgres') {
    const [{ targetSchema }, { reaperSchema, reapPostgres }] = await Promise.all([import('../providers/postgres/sql.ts'), import('./postgres.ts')]);
    const { vaultUsers, actAs, ...rest } = block;
    const settings = checked(reaperSchema, { ...(vaultUsers === undefined ? {} : { vaultUsers }), ...(actAs === undefined ? {} : { actAs }) });
    const config = checked(targetSchema, rest);
    return { name, kind, reap: (signal) => reapPostgres(name, config, settings, options, signal) };
  }
  throw new Error(`targets.${name}.kind: ${JSON.stringify(kind)} is not a kind that is reaped; kubernetes-rbac and postgres are`);
}

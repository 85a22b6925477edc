/** The commands that run beside the database: serve, worker, migrate, config check, config schema, audit keygen, audit prune. They speak on stderr; stdout holds data only. */
import { link, open, rm } from 'node:fs/promises';
import { type Config, ConfigError, configJsonSchema, configPath, loadConfig } from './config/load.ts';
import { listenSchema } from './config/schema.ts';
import { readSecret } from './config/secrets.ts';
import { providerOf, providers } from './providers/registry.ts';
import type { PruneCommandOptions } from './prune-command.ts';
import { exitCodeOf, onStopSignal, type StopSignal } from './stop-signal.ts';

const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** Runs `work`; a fault of the config, of the start or of a file is said in words and gives 1. */
async function inWords(work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ConfigError) {
      say(error.message);
      say(
        `${error.faults.length === 1 ? 'This fault keeps' : `These ${error.faults.length} faults keep`} Halligan from starting. Mend the file, then: halligan config check`,
      );
    } else say(`${(error as Error).message}`);
    return 1;
  }
}

const load = (given: string | undefined): Promise<Config> => loadConfig(configPath(given), providerOf);

/** What runs a container waits 30 s before it kills it. */
const longestStopMs = 25_000;

export interface ServeOptions {
  readonly config?: string | undefined;
  readonly web: boolean;
  readonly worker: boolean;
  /** `host:port` for the metrics of this process, instead of `metrics.listen`. */
  readonly metrics?: string | undefined;
}

/** Runs until SIGTERM or SIGINT, then lets what is under way finish (25 s at most). A second signal leaves at once. Resolves with the exit code. */
export async function serveCommand(options: ServeOptions): Promise<number> {
  let told: (signal: StopSignal) => void = () => undefined;
  const asked = new Promise<StopSignal>((resolve) => {
    told = resolve;
  });
  let started = false;
  const leave = (signal: StopSignal): never => process.exit(exitCodeOf(signal));
  // Before the start is done there is nothing to finish: what a crash leaves is what the next start expects.
  onStopSignal((signal) => (started ? told(signal) : leave(signal)), leave);
  return inWords(async () => {
    const loaded = await load(options.config);
    const config = options.metrics === undefined ? loaded : { ...loaded, metrics: { listen: metricsAddress(options.metrics) } };
    const { startProcess } = await import('./compose.ts');
    const running = await startProcess(config, { web: options.web, worker: options.worker });
    started = true;
    const { log } = running.ctx;
    if (!options.web) log.info({ code: 'working' }, 'the workers are running');
    const signal = await asked;
    log.info({ code: 'stopping', signal }, 'stopping; a second signal leaves at once');
    const late = setTimeout(() => {
      log.warn({ code: 'stopped_late' }, 'not all came to its end in 25 s; it is left as after a crash, and the next process goes on with it');
      process.exit(0);
    }, longestStopMs);
    await running.stop();
    clearTimeout(late);
    log.info({ code: 'stopped' }, 'stopped');
    return 0;
  });
}

function metricsAddress(given: string): string {
  const parsed = listenSchema.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new Error(`--metrics ${JSON.stringify(given)}: ${parsed.error.issues[0]?.message ?? 'say host:port'}.`);
}

/** Applies what is pending and prints the names of it on stdout. The address is `--url`, then `database.migration`, then `database` itself. */
export const migrateCommand = (options: { config?: string | undefined; url?: string | undefined }): Promise<number> =>
  inWords(async () => {
    const { url, password } = await migrationAddress(options);
    const { migrate } = await import('./db/migrate.ts');
    const { migrationsDirectory } = await import('./compose.ts');
    const applied = await migrate({ url, directory: migrationsDirectory, password });
    for (const name of applied) process.stdout.write(`${name}\n`);
    say(applied.length === 0 ? 'The database is up to date.' : `Applied ${applied.length}; the database is up to date.`);
    return 0;
  });

/** Deletes the archived beginning of the audit log; see `prune-command.ts`. The address is that of `migrate`. */
export const pruneLogCommand = (options: PruneCommandOptions & { config?: string | undefined; url?: string | undefined }): Promise<number> =>
  inWords(async () => (await import('./prune-command.ts')).pruneLog(options, await migrationAddress(options), () => load(options.config)));

async function migrationAddress(options: {
  config?: string | undefined;
  url?: string | undefined;
}): Promise<{ url: string; password?: () => Promise<string> }> {
  if (options.url !== undefined) {
    if (!/^postgres(ql)?:\/\//.test(options.url) || !URL.canParse(options.url)) throw new Error('--url must be a postgres:// address.');
    return { url: options.url };
  }
  const { database } = await load(options.config);
  const { url, password } = database.migration ?? database;
  return { url, ...(password ? { password: () => readSecret(password) } : {}) };
}

/** Lists every fault with its file and line, or says ok. */
export async function configCheckCommand(options: { config?: string | undefined }): Promise<number> {
  try {
    const config = await load(options.config);
    const count = (size: number, word: string): string => `${size} ${word}${size === 1 ? '' : 's'}`;
    process.stdout.write(`ok: ${count(config.targets.size, 'target')}, ${count(config.entitlements.size, 'entitlement')}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    say(error.message);
    return 1;
  }
}

/** Checks every target with our own identity; see `doctor.ts`. */
export const doctorCommand = (options: { config?: string | undefined; output: 'table' | 'json' | 'yaml' }): Promise<number> =>
  inWords(async () => (await import('./doctor.ts')).doctorCommand(options));

/** Prints the least rights that the loaded config needs; see `doctor.ts`. */
export const printCommand = (options: { config?: string | undefined; what: string }): Promise<number> =>
  inWords(async () => (await import('./doctor.ts')).printCommand(options));

/** Prints the JSON Schema of the config file, with the blocks of every provider. */
export async function configSchemaCommand(): Promise<number> {
  const known = await Promise.all(Object.values(providers).map((provider) => provider()));
  process.stdout.write(`${JSON.stringify(configJsonSchema(known), null, 2)}\n`);
  return 0;
}

/** Makes the log's signing key. The private half is written for its owner only and never over another file; the verifier key also goes to stdout. */
export const keygenCommand = (options: { name: string; out: string }): Promise<number> =>
  inWords(async () => {
    const { generateSigningKey } = await import('./audit/checkpoint.ts');
    const { signingKey, verifierKey } = generateSigningKey(options.name);
    await writeNew(options.out, `${signingKey}\n`, 0o600);
    try {
      await writeNew(`${options.out}.pub`, `${verifierKey}\n`, 0o644);
    } catch (error) {
      await rm(options.out, { force: true });
      throw error;
    }
    process.stdout.write(`${verifierKey}\n`);
    say(`${options.out} is the private key: only Halligan may read it (audit.signingKeyFile). ${options.out}.pub is for auditors.`);
    return 0;
  });

/** A new file, whole or not at all. */
async function writeNew(path: string, text: string, mode: number): Promise<void> {
  const draft = `${path}.${process.pid}.new`;
  try {
    const file = await open(draft, 'wx', mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(draft, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(code === 'EEXIST' ? `${path} exists already, and a key is never written over.` : `${path} cannot be written (${code}).`, { cause: error });
  } finally {
    await rm(draft, { force: true });
  }
}

/** `halligan audit prune`: deletes the archived beginning of the log, as the role that owns the tables. Without `--yes` it only says what it would do. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import pino from 'pino';
import { carryOutPrune, type PruneOptions, type PrunePlan, PruneRefused, planPrune } from './commands/prune-log.ts';
import type { Config } from './config/load.ts';
import { openDb, openPool } from './db/pool.ts';

export interface PruneCommandOptions {
  readonly export: string;
  readonly checkpoints?: string | undefined;
  readonly key?: string | undefined;
  readonly before: string;
  readonly yes?: boolean | undefined;
}

interface Address {
  readonly url: string;
  readonly password?: () => Promise<string>;
}

const say = (text: string): void => void process.stderr.write(`${text}\n`);
const everyMs = 1_000;
const stepWords = { verified: 'verified', compared: 'compared with the database', deleted: 'deleted' };

/** Verifies, compares, says what goes, and with `yes` deletes it. Resolves with the exit code; throws in words. */
export async function pruneLog(options: PruneCommandOptions, address: Address, load: () => Promise<Config>): Promise<number> {
  const before = timeOf(options.before);
  const { checkpoints, key } = await given(options, load);
  await stat(options.export).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`--export ${options.export} cannot be read (${error.code}).`);
  });
  const pool = openPool({ connectionString: address.url, password: address.password, max: 2, applicationName: 'halligan audit prune' });
  const progress = progressLine();
  try {
    const db = openDb(pool);
    const plan = await planPrune(db, { exportFile: options.export, checkpoints, key, before, onProgress: progress.show });
    progress.clear();
    say(inWords(plan, options.export));
    if (!options.yes) {
      say('Nothing was deleted. To do it, say the same with --yes.');
      return 0;
    }
    await carryOutPrune(db, pino({ level: 'silent' }), plan, progress.show);
    progress.clear();
    process.stdout.write(`${JSON.stringify({ from: plan.from, to: plan.to, exportSha256: plan.exportSha256, checkpoint: plan.checkpoint })}\n`);
    say(`Deleted. Keep ${options.export}: nothing else has these entries any more.`);
    return 0;
  } catch (error) {
    progress.clear();
    if (error instanceof PruneRefused) throw new Error(`${error.message} (${error.code})`, { cause: error });
    if ((error as { code?: string }).code === '42501')
      throw new Error('This role may not delete from the log. Use the one that owns the tables: --url, or database.migration in the config.', { cause: error });
    throw error;
  } finally {
    await pool.end();
  }
}

const inWords = ({ from, to, firstAt, lastAt, exportSha256, checkpoint }: PrunePlan, file: string): string =>
  `${file} (SHA-256 ${exportSha256}) is the log up to entry ${checkpoint - 1}, as it was signed and published, and as it is in the database.
To be deleted: the text of the entries ${from} to ${to - 1}, written from ${firstAt} to ${lastAt}. Their hashes, and every checkpoint, stay.`;

/** RFC 3339, or a date, which begins at midnight UTC. */
function timeOf(text: string): Date {
  const time = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/.test(text) ? new Date(text) : new Date(Number.NaN);
  if (Number.isNaN(time.getTime())) throw new Error(`--before ${JSON.stringify(text)} is not a time: say 2026-01-31, or 2026-01-31T12:00:00Z.`);
  if (time.getTime() > Date.now()) throw new Error(`--before ${text} has not come yet.`);
  return time;
}

/** The checkpoints and the verifier key: as said, or those of the config. */
async function given({ checkpoints, key }: PruneCommandOptions, load: () => Promise<Config>): Promise<Pick<PruneOptions, 'checkpoints' | 'key'>> {
  const audit = checkpoints === undefined || key === undefined ? (await load()).audit : undefined;
  const file = key ?? `${audit?.signingKeyFile}.pub`;
  const text = /^[^+\s]+\+[0-9a-f]{8}\+/.test(file)
    ? file
    : await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
        throw new Error(`The verifier key ${file} cannot be read (${error.code}): --key takes it (name+hash+base64), or a file that holds it.`);
      });
  if (text.startsWith('PRIVATE+KEY+')) throw new Error(`${file} holds the private key; only the public one is needed: --key ${file}.pub`);
  const path = checkpoints ?? audit?.checkpoints.directory ?? '';
  await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`The checkpoints ${path} cannot be read (${error.code}): --checkpoints names the published ones.`);
  });
  return { checkpoints: path.endsWith('/') ? join(path) : path, key: text.trim() };
}

/** One line on a terminal that is written over; elsewhere nothing. */
function progressLine(): { show: NonNullable<PruneOptions['onProgress']>; clear(): void } {
  let last = performance.now();
  let shown = false;
  return {
    show(step, entries) {
      if (!process.stderr.isTTY || performance.now() - last < everyMs) return;
      last = performance.now();
      shown = true;
      process.stderr.write(`\r\u001b[K${entries} entries ${stepWords[step]}…`);
    },
    clear() {
      if (shown) process.stderr.write('\r\u001b[K');
      shown = false;
    },
  };
}

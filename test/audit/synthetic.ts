/** Logs made by the writer's own code, without a database: for the verifier's tests and for measuring it. */
import { createWriteStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { checkpointBody, generateSigningKey, type Signer, signerFrom } from '../../src/audit/checkpoint.ts';
import { append, emptyFrontier, leafHash, rootOf } from '../../src/audit/tree.ts';
import { auditLine } from '../../src/domain/audit-event.ts';

export const logName = 'halligan.example.com/audit';
const startedAt = Date.parse('2026-01-02T03:04:05.000Z');

export const newSigner = (): Signer => signerFrom(generateSigningKey(logName).signingKey);

/** Entry `index` of a synthetic log: about as long as a real one, with text outside ASCII in it. */
export const syntheticLine = (index: number): string =>
  auditLine(`evt_${index.toString(16).padStart(32, '0')}`, new Date(startedAt + index * 100), {
    type: 'request.approved',
    actor: { id: 'per_0123456789abcdef0123456789abcdef', name: 'léad', via: 'web' },
    person: 'per_fedcba9876543210fedcba9876543210',
    request: `req_${(index % 97).toString(16).padStart(32, '0')}`,
    grant: `gnt_${(index % 97).toString(16).padStart(32, '0')}`,
    incident: 'INC-2041',
    entitlements: ['orders-readonly'],
    data: { reason: `step ${index}: the queue “orders” is stuck` },
  });

export interface SyntheticLog {
  readonly log: string;
  /** A directory as the sealer publishes it. */
  readonly checkpoints: string;
  readonly verifierKey: string;
}

/** Writes a log of `sizes.at(-1)` entries with a checkpoint at each of `sizes`. */
export async function writeSynthetic(folder: string, sizes: readonly number[], signer: Signer = newSigner()): Promise<SyntheticLog> {
  const paths = { log: join(folder, 'log.jsonl'), checkpoints: join(folder, 'checkpoints') };
  await mkdir(paths.checkpoints, { recursive: true });
  const log = createWriteStream(paths.log);
  const published = createWriteStream(join(paths.checkpoints, 'checkpoints.jsonl'));
  const frontier = emptyFrontier();
  let note = '';
  for (const size of sizes) {
    const leaves: string[] = [];
    let text = '';
    for (let index = frontier.size; index < size; index += 1) {
      const line = syntheticLine(index);
      const leaf = leafHash(line);
      append(frontier, leaf);
      leaves.push(leaf.toString('hex'));
      text += `${line}\n`;
    }
    note = signer.sign(checkpointBody({ origin: signer.name, size, root: rootOf(frontier) }));
    const at = new Date(startedAt + (size - 1) * 100 + 1_500).toISOString();
    published.write(`${JSON.stringify({ at, note, leaves })}\n`);
    if (!log.write(text)) await new Promise<void>((resolve) => log.once('drain', resolve));
  }
  log.end();
  published.end();
  await Promise.all([finished(log), finished(published)]);
  await writeFile(join(paths.checkpoints, 'latest'), note);
  return { ...paths, verifierKey: signer.verifierKey };
}

/** Sizes of checkpoints every `step` entries up to `size`. */
export const every = (step: number, size: number): number[] => [...Array.from({ length: Math.ceil(size / step) - 1 }, (_, i) => (i + 1) * step), size];

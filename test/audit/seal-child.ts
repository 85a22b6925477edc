/** A process of its own that seals once and stops for ever at one failpoint, so that a test can kill it there. Arguments: database URL, directory, failpoint; the signing key comes in by the environment. */
import { signerFrom } from '../../src/audit/checkpoint.ts';
import { createSealer } from '../../src/audit/seal.ts';
import { openPool } from '../../src/db/pool.ts';

const [connectionString = '', directory = '', stopAt = ''] = process.argv.slice(2);
const silent = (): void => undefined;
const sealer = createSealer({
  pool: openPool({ connectionString, max: 2 }),
  signer: signerFrom(process.env.SEAL_CHILD_KEY ?? ''),
  directory,
  log: { info: silent, warn: silent, error: silent },
  failpoint: async (name) => {
    if (name !== stopAt) return;
    console.log(`at ${name}`);
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },
});
await sealer.sealOnce();

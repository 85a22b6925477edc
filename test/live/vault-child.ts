/**
 * Halligan as a process of its own, to be killed: issues or ends one lease at a Vault target, or checks the target, prints what
 * came of it as one line of JSON, and waits. Its only argument is a file: `{ block, spec, work: 'issue' | 'revoke' | 'check' }`.
 */
import { readFile } from 'node:fs/promises';
import { readSecret } from '../../src/config/secrets.ts';
import type { LeaseSpec } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/vault-database/config.ts';
import { vaultDatabase } from '../../src/providers/vault-database.ts';

const { block, spec, work } = JSON.parse(await readFile(process.argv[2] ?? '', 'utf8')) as {
  block: unknown;
  spec: LeaseSpec;
  work: 'issue' | 'revoke' | 'check';
};
const target = vaultDatabase.connect('orders-vault', targetSchema.parse(block), { readSecret });
const signal = AbortSignal.timeout(20_000);
try {
  const ref = { ...spec, endsAt: new Date(spec.endsAt) };
  const works = { issue: () => target.issue(ref, signal), revoke: () => target.revoke(ref, signal), check: () => target.check([spec.grant], signal) };
  console.log(JSON.stringify(await works[work]()));
} catch (error) {
  console.log(JSON.stringify({ error: (error as Error).message }));
}
setInterval(() => undefined, 1_000);

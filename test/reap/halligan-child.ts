/** Halligan as a process of its own, to be killed: makes one login at a PostgreSQL target, prints it as one line of JSON, and waits. Its only argument is a file: `{ block, spec }`. */
import { readFile } from 'node:fs/promises';
import { readSecret } from '../../src/config/secrets.ts';
import type { LeaseSpec } from '../../src/domain/provider.ts';
import { postgres } from '../../src/providers/postgres.ts';

const { block, spec } = JSON.parse(await readFile(process.argv[2] ?? '', 'utf8')) as { block: unknown; spec: LeaseSpec };
const target = postgres.connect('orders-db', postgres.targetSchema.parse(block), { readSecret });
const issued = await target.issue({ ...spec, endsAt: new Date(spec.endsAt) }, AbortSignal.timeout(20_000));
console.log(JSON.stringify({ issued, limits: target.limits }));
setInterval(() => undefined, 1_000);

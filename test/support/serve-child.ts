/** The whole server as a process of its own, for tests that kill it. `node serve-child.ts <config>`; says `ready` when it listens. */
import { startProcess } from '../../src/compose.ts';
import { loadConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';

const running = await startProcess(await loadConfig(process.argv[2] ?? '', providerOf), { web: true, worker: true, databasePatienceMs: 10_000 });
process.once('SIGTERM', () => void running.stop().then(() => process.exit(0)));
console.log('ready');

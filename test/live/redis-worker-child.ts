/** A worker as a process of its own, without the web. `node redis-worker-child.ts <config>`; says `ready` when it runs, and `revoking <lease>` for each try to end one. */
import { startProcess } from '../../src/compose.ts';
import { loadConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { type Faults, providerDouble } from '../support/provider-double.ts';

const watched: Faults = {
  revoke(real, ref) {
    console.log(`revoking ${ref.leaseId}`);
    return real();
  },
};
const config = await loadConfig(process.argv[2] ?? '', async (kind) => {
  const real = await providerOf(kind);
  return real && providerDouble(real, () => watched);
});
const running = await startProcess(config, { web: false, worker: true, databasePatienceMs: 10_000 });
process.once('SIGTERM', () => void running.stop().then(() => process.exit(0)));
console.log('ready');

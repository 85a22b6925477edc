/**
 * A real Halligan process that dies, stops, throws or hangs at a failpoint when its parent says so. `node child.ts <config>
 * <web|worker> [<arms>]`; it says `ready` when it runs, and `hit <name>` before anything befalls it. It never outlives its parent.
 */
import { writeSync } from 'node:fs';
import { startProcess } from '../../src/compose.ts';
import { loadConfig } from '../../src/config/load.ts';
import { armFailpoint } from '../../src/domain/failpoint.ts';
import { providerOf } from '../../src/providers/registry.ts';
import type { Arm } from './processes.ts';

const [file = '', role = 'worker', first = '[]'] = process.argv.slice(2);
const armed = new Map<string, { mode: Arm['mode']; left: number }>();
const arm = ({ name, mode, nth = 1 }: Arm): void => void armed.set(name, { mode, left: nth });
for (const one of JSON.parse(first) as Arm[]) arm(one);

armFailpoint((name) => {
  const one = armed.get(name);
  if (!one) return undefined;
  one.left -= 1;
  if (one.left > 0) return undefined;
  armed.delete(name);
  writeSync(1, `hit ${name}\n`);
  if (one.mode === 'kill') process.kill(process.pid, 'SIGKILL');
  if (one.mode === 'throw') throw new Error(`thrown at ${name}`);
  if (one.mode === 'hang') return new Promise(() => undefined);
  // It goes on here when somebody wakes it.
  if (one.mode === 'pause') process.kill(process.pid, 'SIGSTOP');
  return undefined;
});
process.on('message', (message) => {
  arm(message as Arm);
  process.send?.('armed');
});
process.once('disconnect', () => process.exit(1));

const running = await startProcess(await loadConfig(file, providerOf), { web: role === 'web', worker: role === 'worker', databasePatienceMs: 10_000 });
process.once('SIGTERM', () => void running.stop().then(() => process.exit(0)));
writeSync(1, 'ready\n');

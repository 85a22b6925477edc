/**
 * A process of its own that asks for the singleton duties as a worker does, seals the log, and says what it does, one JSON object a line.
 * Arguments: database URL, directory of checkpoints, a failpoint of the sealer at which it stops itself by SIGSTOP, once it is told `arm`
 * on its standard input; the signing key comes in by the environment. SIGTERM ends it in good order.
 */
import pino from 'pino';
import { signerFrom } from '../../src/audit/checkpoint.ts';
import { createSealer } from '../../src/audit/seal.ts';
import { openDb, openPool } from '../../src/db/pool.ts';
import { newId } from '../../src/domain/ids.ts';
import { type Duty, startDuty } from '../../src/workers/duty.ts';
import { askForDuties } from '../../src/workers/holds.ts';

const [connectionString = '', directory = '', stopAt = ''] = process.argv.slice(2);
const say = (facts: object): void => void process.stdout.write(`${JSON.stringify({ at: Date.now(), ...facts })}\n`);
let armed = false;
process.stdin.on('data', () => {
  armed = true;
  say({ armed });
});
const pool = openPool({ connectionString, max: 4 });
pool.on('error', () => undefined);
const log = pino({ level: 'info' }, { write: (line: string) => say({ log: (JSON.parse(line) as { code?: string }).code }) });
const sealer = createSealer({
  pool,
  directory,
  signer: signerFrom(process.env['SEAL_CHILD_KEY'] ?? ''),
  log: { info: () => undefined, warn: () => undefined, error: (facts) => say({ refused: facts }) },
  failpoint: (name) => {
    if (!armed || name !== stopAt) return;
    armed = false;
    say({ stops: name });
    process.kill(process.pid, 'SIGSTOP');
  },
});
const names = ['seal-audit', 'expire-grants', 'prune'];
const duties: Duty[] = [];
const holder = newId('process');
const holds = askForDuties({
  db: openDb(pool),
  log,
  holder,
  names,
  taken: (name) => {
    say({ taken: name, epoch: holds.held(name)?.epoch });
    for (const duty of duties) duty.nudge();
  },
});
duties.push(
  startDuty(log, 'seal-audit', 200, () =>
    holds.under('seal-audit', async (hold) => {
      const sealed = await sealer.sealOnce(hold);
      if (sealed) say({ sealed: sealed.size, epoch: hold.epoch });
    }),
  ),
);
duties.push(startDuty(log, 'expire-grants', 200, () => holds.under('expire-grants', async (hold) => say({ swept: hold.epoch }))));
say({ ready: holder });
process.once('SIGTERM', () => {
  void (async () => {
    process.stdin.destroy();
    await Promise.all(duties.map((duty) => duty.stop()));
    await holds.stop();
    say({ let: 'go' });
    await pool.end();
  })();
});

/** `halligan status --system` against a real server: what those who run it see at a glance, and nobody else. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type House, startTestHouse, until } from '../support/house.ts';
import { claimed, granted } from '../support/house-verbs.ts';
import { newSeat, type Seat } from './run-cli.ts';

let house: House;
const seats: Seat[] = [];
const seatOf = async (person: string): Promise<Seat> => {
  const seat = await newSeat({ HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: await house.tokenOf(person) });
  seats.push(seat);
  return seat;
};
beforeAll(async () => {
  house = await startTestHouse();
});
afterAll(async () => {
  for (const seat of seats) await seat.close();
  await house?.close();
});

test('all is well: one line for each target, one for the house, and nothing on stderr', async () => {
  const auditor = await seatOf('auditor');
  await until('the log is sealed', async () => (await house.database.superuser.query('SELECT FROM audit_checkpoint')).rowCount! > 0);
  const ran = await auditor.run('status', '--system');
  expect(ran.code, ran.err).toBe(0);
  expect(ran.err).toBe('');
  const [head, target, house_] = ran.out.split('\n');
  expect(head).toBe('TARGET      OPEN   DUE   OVERDUE   LAST OK   DUE→CUT p99   NEXT TRY');
  expect(target).toMatch(/^orders-db +0 +0 +0 +– +–$/);
  expect(house_).toMatch(/^queue {2}in memory, 0 waiting · log sealed \d+ s ago(, \d+ events? waiting)? · web\+worker on \S+ \(\d+\) alive$/);
});

test('a target that is away: due, overdue by how much, which try comes when, and why', async () => {
  const admin = await seatOf('admin');
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  house.faults.revoke = async () => {
    throw new Error('the target is away');
  };
  try {
    await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
    await until(
      'a try failed',
      async () => (await house.database.superuser.query('SELECT FROM lease WHERE id = $1 AND tries > 0', [issued.lease])).rowCount === 1,
    );
    await house.database.superuser.query(`UPDATE lease SET revoking_at = now() - interval '192 seconds' WHERE id = $1`, [issued.lease]);
    const ran = await admin.run('status', '--system');
    expect(ran.code).toBe(0);
    expect(ran.out).toMatch(/^orders-db +1 +1 +1 ▲ 03:1\d +– +– +(\d+ s|now) \(\d+(st|nd|rd|th), orders-db: ending the login failed/m);
    expect(ran.err).toMatch(/▲ orders-db: 1 revocation overdue: orders-db: ending the login failed/);
    const json = await admin.run('status', '--system', '-o', 'json');
    expect(JSON.parse(json.out)).toMatchObject({ targets: [{ target: 'orders-db', open: 1, due: 1, overdue: 1 }], processes: [{ roles: ['web', 'worker'] }] });
    const yaml = await admin.run('status', '--system', '-o', 'yaml');
    expect(yaml.out).toMatch(/^targets:\n {2}- target: orders-db\n/);
  } finally {
    delete house.faults.revoke;
  }
  await until(
    'it is cut',
    async () => (await house.database.superuser.query(`SELECT FROM lease WHERE id = $1 AND state = 'revoked'`, [issued.lease])).rowCount === 1,
    15_000,
  );
  expect((await admin.run('status', '--system')).out).toMatch(/^orders-db +0 +0 +0 +\d+ s ago +\d+\.\d s$/m);
});

test('no worker alive is said loudly; others are refused; an id does not go with it', async () => {
  const admin = await seatOf('admin');
  await house.stop();
  await house.start({ worker: false });
  await until('it is alive', async () => (await house.database.superuser.query('SELECT FROM process')).rowCount === 1);
  const ran = await admin.run('status', '--system');
  expect(ran.out).toMatch(/^no worker is alive · log sealed .* · web on \S+ \(\d+\) alive$/m);
  expect(ran.err).toMatch(/No worker is alive: nothing is ended but by the targets themselves\. Start one: halligan worker/);
  const stranger = await (await seatOf('oncall')).run('status', '--system');
  expect([stranger.code, stranger.out]).toEqual([6, '']);
  expect(stranger.err).toContain('Only auditors and admins see how Halligan itself does.');
  expect((await admin.run('status', '--system', 'req_0199f3a1')).code).toBe(2);
  await house.stop();
  await house.start();
});

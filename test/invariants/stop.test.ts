/** SIGTERM under load: what was begun is finished, nothing is cut half-way, and the process leaves by itself. */
import { afterEach, expect, test } from 'vitest';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { apiOf, type House, startTestHouse } from '../support/house.ts';
import { type ClaimedAnswer, granted, loginAnswer } from '../support/house-verbs.ts';

let house: House | undefined;
let child: ChildServer | undefined;
afterEach(async () => {
  await child?.kill();
  child = undefined;
  await house?.close();
  house = undefined;
});

test('told to stop while claims run: each claim is answered whole or never began, and the exit is 0', async () => {
  house = await startTestHouse({ server: 'none' });
  child = await startChild(house);
  const grants: string[] = [];
  for (let index = 0; index < 8; index++) grants.push((await granted(house)).grant);
  const oncall = apiOf(house.url, await house.tokenOf('oncall'));
  const claims = grants.map((grant) =>
    oncall.post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' }).catch((error: Error) => error),
  );
  await new Promise((resolve) => setTimeout(resolve, 15));
  const began = performance.now();
  expect(await child.stop()).toBe(0);
  expect(performance.now() - began).toBeLessThan(25_000);
  const said = child.output();
  child = undefined;
  const answers = await Promise.all(claims);
  const shown = answers.flatMap((answer) => (answer instanceof Error ? [] : [answer]));
  const { rows } = await house.database.superuser.query<{ id: string; state: string }>('SELECT id, state FROM lease');
  // Whoever has no answer has no lease: no secret was made and then lost.
  expect(rows.map((row) => row.state)).toEqual(shown.map(() => 'live'));
  for (const answer of shown) {
    expect(answer.status).toBe(201);
    expect(await loginAnswer(answer.body)).toBe('let in');
  }
  expect(said).not.toMatch(/"level":"(error|fatal)"/);
  const left = await house.database.superuser.query(
    `SELECT FROM pg_stat_activity WHERE datname = $1 AND usename = 'halligan_app' AND application_name LIKE 'halligan%'`,
    [house.database.name],
  );
  expect(left.rowCount).toBe(0);
}, 60_000);

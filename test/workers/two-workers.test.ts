/** Two whole servers with a queue of their own each, on one database: one sweeps for both, and when it is killed the other one does. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { apiOf, freePort, type House, startTestHouse, until } from '../support/house.ts';
import { claimed, granted } from '../support/house-verbs.ts';

let house: House;
const children: ChildServer[] = [];
beforeAll(async () => {
  house = await startTestHouse({ worker: false });
});
afterAll(async () => {
  await Promise.all(children.map((child) => child.kill()));
  await house?.close();
});

interface System {
  readonly duties: { readonly name: string; readonly process: string | null; readonly doneAt: string | null }[];
  readonly processes: { readonly id: string; readonly pid: number }[];
}
const system = async (): Promise<System> => (await apiOf(house.url, await house.tokenOf('auditor')).get<System>('/system')).body;
const holderOf = async (name: string): Promise<number | undefined> => {
  const { duties, processes } = await system();
  return processes.find((one) => one.id === duties.find((duty) => duty.name === name)?.process)?.pid;
};
async function second(): Promise<ChildServer> {
  const text = await readFile(house.configFile, 'utf8');
  const file = join(house.folder, `worker-${children.length}.yaml`);
  await writeFile(file, text.replaceAll(new URL(house.url).host, `127.0.0.1:${await freePort()}`));
  const child = await startChild({ ...house, configFile: file });
  children.push(child);
  return child;
}

test('whoever sweeps is shown; killed right before an end, the other one ends it within 5 s, and seals; nothing is late', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  const both = [await second(), await second()];
  const pid = await until('somebody sweeps', () => holderOf('expire-grants'), 20_000);
  const [holder, other] = both[0]?.pid === pid ? both : both.toReversed();
  await house.database.superuser.query("UPDATE access_grant SET ends_at = now() + interval '300 milliseconds' WHERE id = $1", [grant]);
  await holder?.kill();
  const since = Date.now();
  await until(
    'it is ended',
    async () => (await house.database.superuser.query("SELECT FROM access_grant WHERE id = $1 AND state = 'ended'", [grant])).rowCount === 1,
    10_000,
  );
  const took = Date.now() - since;
  console.log(`killed 300 ms before an end: ended by the other one ${took} ms after the kill`);
  expect(took).toBeLessThan(5_300);
  expect((await house.database.superuser.query('SELECT state FROM lease WHERE id = $1', [lease])).rows).toEqual([{ state: 'revoked' }]);
  expect(await holderOf('expire-grants')).toBe(other?.pid);
  for (const name of ['seal-audit', 'expire-grants', 'prune']) await until(`${name} is done`, async () => (await holderOf(name)) === other?.pid);
  // It tells with its next question, within a second, that a run has ended well.
  await until('each is done once', async () => (await system()).duties.every((duty) => duty.doneAt !== null));
  // One that only waits is well: it is not late with what another one does.
  const third = await second();
  expect(third.output()).not.toContain('duty_failed');
});

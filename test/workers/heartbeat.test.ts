/** Which processes are alive: each says so itself, and one that stops saying it is gone. */
import { readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startProcess } from '../../src/compose.ts';
import { startChild } from '../support/child-server.ts';
import { freePort, type House, startTestHouse, until } from '../support/house.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse({ worker: false });
});
afterAll(() => house?.close());

interface Alive {
  readonly id: string;
  readonly pid: number;
  readonly host: string;
  readonly roles: string[];
  readonly version: string;
  readonly clockOffsetMs: number;
  readonly queue: string | null;
  readonly queueWaiting: number | null;
  readonly troubles: string[];
  readonly startedAt: string;
}
const alive = async (): Promise<Alive[]> => (await (await house.apiAs('auditor')).get<{ processes: Alive[] }>('/system')).body.processes;

test('one that serves only is there at once, with its clock and no queue', async () => {
  const [one, ...others] = await until('it is alive', async () => {
    const all = await alive();
    return all.length > 0 && all;
  });
  expect(others).toEqual([]);
  expect(one).toMatchObject({ pid: process.pid, host: hostname(), roles: ['web'], queue: null, queueWaiting: null, troubles: [] });
  expect(one!.version).toMatch(/^\d/);
  expect(Math.abs(one!.clockOffsetMs)).toBeLessThan(1_000);
  expect(Math.abs(Date.parse(one!.startedAt) - Date.now())).toBeLessThan(60_000);
});

test('a worker beside it is shown with its queue, and gone at once when it ends in good order', async () => {
  const { config } = house;
  const listen = `127.0.0.1:${await freePort()}`;
  const worker = await startProcess({ ...config, metrics: { listen } }, { web: false, worker: true, log: house.running.ctx.log });
  const shown = await until('both are alive', async () => (await alive()).find((one) => one.roles.includes('worker')));
  expect(shown).toMatchObject({ roles: ['worker'], queue: 'memory', queueWaiting: 0 });
  // It has a listener of its own, though it serves no page.
  expect((await fetch(`http://${listen}/readyz`)).status).toBe(200);
  expect(await (await fetch(`http://${listen}/metrics`)).text()).toContain('halligan_queue_jobs');
  await worker.stop();
  expect((await alive()).map((one) => one.roles)).toEqual([['web']]);
  await expect(fetch(`http://${listen}/metrics`)).rejects.toThrow();
});

test('one that is killed is no longer shown after a minute, and the others take its row away', async () => {
  const port = await freePort();
  const text = await readFile(house.configFile, 'utf8');
  const file = `${house.configFile}.second.yaml`;
  await writeFile(file, text.replaceAll(new URL(house.url).host, `127.0.0.1:${port}`));
  const child = await startChild({ ...house, configFile: file });
  const killed = await until('it is alive', async () => (await alive()).find((one) => one.pid === child.pid));
  expect(killed.roles).toEqual(['web', 'worker']);
  await child.kill();
  expect((await alive()).map((one) => one.pid)).toContain(child.pid);
  await house.database.superuser.query(`UPDATE process SET seen_at = seen_at - interval '61 seconds' WHERE id = $1`, [killed.id]);
  expect((await alive()).map((one) => one.pid)).not.toContain(child.pid);
  await until('its row is gone', async () => (await house.database.superuser.query('SELECT FROM process WHERE id = $1', [killed.id])).rowCount === 0, 15_000);
}, 40_000);

test('one that was stopped for so long that its row is gone comes back by itself', async () => {
  await house.database.superuser.query('DELETE FROM process');
  expect(await alive()).toEqual([]);
  await until('it is back', async () => (await alive()).length === 1, 15_000);
}, 20_000);

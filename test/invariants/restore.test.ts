/**
 * Invariant 12: after a restore Halligan starts in quarantine. It ends what is due, opens nothing, shows where targets and rows
 * differ, and goes on when an admin says so; the log then continues the tree that was published.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { signerFrom } from '../../src/audit/checkpoint.ts';
import { exportLog } from '../../src/audit/export.ts';
import { verifyExport } from '../../src/audit/verify.ts';
import { liftQuarantine } from '../../src/commands/quarantine.ts';
import { openDb } from '../../src/db/pool.ts';
import { isRefusal } from '../../src/domain/errors.ts';
import { reconcileLeases } from '../../src/workers/reconcile-leases.ts';
import { newSeat } from '../cli/run-cli.ts';
import { type Api, type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { ask, claim, claimed, endsIn, granted, loginAnswer } from '../support/house-verbs.ts';
import { asSuperuser } from '../support/postgres.ts';

let house: House;
afterEach(() => house?.close());

const query = async <T extends object>(sql: string, values: unknown[] = []): Promise<T[]> => (await house.database.superuser.query<T>(sql, values)).rows;
const count = async (sql: string, values: unknown[] = []): Promise<number> => (await query<{ n: number }>(`SELECT count(*)::int AS n ${sql}`, values))[0]!.n;
const alone = (name: string) => `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`;

/** With the server stopped: the database as it is, under another name. */
async function backUp(): Promise<void> {
  const { name } = house.database;
  await asSuperuser('postgres', alone(name), `CREATE DATABASE ${name}_backup OWNER halligan_owner TEMPLATE ${name}`);
}

/** With the server stopped: the backup takes the place of the database. */
async function restore(): Promise<void> {
  const { name } = house.database;
  await asSuperuser('postgres', alone(name), `DROP DATABASE ${name}`, `ALTER DATABASE ${name}_backup RENAME TO ${name}`);
}

const sealed = () =>
  until('everything is sealed and published', async () => (await count('FROM audit_pending')) === 0 && (await published()) === (await size()));
const size = async (): Promise<number> => (await query<{ size: number }>('SELECT coalesce(max(size), 0) AS size FROM audit_checkpoint'))[0]!.size;
const published = async (): Promise<number> => {
  const note = await readFile(join(house.folder, 'checkpoints', 'latest'), 'utf8').catch(() => '\n0');
  return Number(note.split('\n')[1]);
};

interface Quarantine {
  readonly quarantine: {
    readonly causes: string[];
    readonly why: string;
    readonly databaseEntries: number;
    readonly publishedEntries: number;
    readonly differences: {
      readonly found: { kind: string; name: string; target: string; endsAt: string | null }[];
      readonly more: number;
      readonly unread: unknown[];
    } | null;
  } | null;
}
const shown = async (api: Api) => (await api.get<Quarantine>('/quarantine')).body.quarantine;

/** The log as an auditor gets it, verified by the program that shares nothing with the writer. */
async function verified(change: (lines: string[]) => string[] = (lines) => lines) {
  const log = join(house.folder, 'export.jsonl');
  let text = '';
  for await (const chunk of exportLog(openDb(house.database.superuser))) text += chunk;
  await writeFile(log, change(text.split('\n')).join('\n'));
  return verifyExport({ log, checkpoints: join(house.folder, 'checkpoints'), key: house.verifierKey });
}

test('an older database: nothing is opened, what is due is ended, differences are shown, and after the lift the published tree goes on', async () => {
  house = await startTestHouse();
  for (const person of ['oncall', 'oncall-2', 'lead', 'auditor', 'admin']) await house.tokenOf(person);
  const [oncall, lead, admin] = [await house.apiAs('oncall'), await house.apiAs('lead'), await house.apiAs('admin')];
  const returnedLater = await granted(house);
  const returnedLogin = await claimed(house, returnedLater.grant);
  const dueLater = await granted(house);
  const dueLogin = await claimed(house, dueLater.grant);
  await sealed();
  await house.stop();
  await backUp();

  await house.start();
  expect((await oncall.post(`/grants/${returnedLater.grant}/return`)).status).toBe(200);
  const lostGrant = await granted(house);
  const lostLogin = await claimed(house, lostGrant.grant);
  await until('the returned login is gone', async () => !(await rolesAt(house.target)).some((role) => role.name === returnedLogin.handle));
  await sealed();
  const [before, entries] = [await published(), await size()];
  await house.stop();
  await restore();

  await house.start();
  expect(house.logged.join('')).toContain('"code":"quarantined"');
  const ready = await fetch(`${house.url}/readyz`);
  expect([ready.status, ((await ready.json()) as { warnings: { code: string }[] }).warnings.map((one) => one.code)]).toEqual([
    200,
    expect.arrayContaining(['quarantined']),
  ]);

  expect(await claim(house, dueLater.grant)).toMatchObject({
    status: 503,
    body: { code: 'quarantined', next: expect.stringContaining('halligan quarantine') },
  });
  const glass = await oncall.post('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'an emergency', breakGlass: true });
  expect(glass).toMatchObject({ status: 503, body: { code: 'quarantined' } });
  const asked = await ask(house);
  expect(await lead.post(`/requests/${asked.id}/decisions`, { decision: 'approve', reason: 'go on', seen: asked.seen })).toMatchObject({ status: 503 });
  expect(
    await count("FROM audit_event WHERE type IN ('claim.refused', 'decision.refused', 'access.refused') AND line LIKE '%\"code\":\"quarantined\"%'"),
  ).toBeGreaterThanOrEqual(2);

  const on = await until('a worker has compared', async () => {
    const now = await shown(admin);
    return now?.differences ? now : undefined;
  });
  expect(on).toMatchObject({ causes: ['log-ahead', 'store-moved'], publishedEntries: entries, differences: { more: 0, unread: [] } });
  expect(on.databaseEntries).toBeLessThan(entries);
  expect(on.differences!.found.map(({ kind, name }) => [kind, name]).toSorted()).toEqual([
    ['missing', returnedLogin.handle],
    ['unexplained', lostLogin.handle],
  ]);
  expect(on.differences!.found.every((one) => Date.parse(one.endsAt ?? '') > Date.now())).toBe(true);
  // Nothing of it is touched, and nothing is signed.
  expect(await loginAnswer(lostLogin)).toBe('let in');
  expect(await count("FROM lease WHERE external_name = $1 AND state = 'live'", [returnedLogin.handle])).toBe(1);
  expect(await published()).toBe(before);

  await endsIn(house, dueLater.grant, 0);
  await until(
    'what is due is ended all the same',
    async () => (await query<{ state: string }>('SELECT state FROM access_grant WHERE id = $1', [dueLater.grant]))[0]?.state === 'ended',
  );
  expect(await loginAnswer(dueLogin)).not.toBe('let in');

  expect(await lead.get('/quarantine')).toMatchObject({ status: 403, body: { code: 'not_eligible' } });
  expect(await lead.post('/quarantine/lift', { reason: 'I want to' })).toMatchObject({ status: 403, body: { code: 'not_eligible' } });
  expect(await (await house.apiAs('auditor')).post('/quarantine/lift', { reason: 'I want to' })).toMatchObject({ status: 403, body: { code: 'not_eligible' } });
  const publication = { signer: signerFrom(await readFile(join(house.folder, 'audit.key'), 'utf8')), directory: join(house.folder, 'checkpoints') };
  const byDevice: unknown = await liftQuarantine(house.running.ctx, publication, await house.actor('admin', 'device'), 'go on').catch(
    (error: unknown) => error,
  );
  expect(isRefusal(byDevice, 'device_may_not_decide')).toBe(true);
  expect(await admin.post('/quarantine/lift', { reason: ' ' })).toMatchObject({ status: 400, body: { code: 'bad_input' } });
  expect(await count("FROM audit_event WHERE type = 'access.refused' AND line LIKE '%lift-quarantine%'")).toBe(3);

  const lifted = await admin.post<{ continued: { from: number; to: number; found: number; lost: number } | null }>('/quarantine/lift', {
    reason: 'restored on purpose',
  });
  expect(lifted).toMatchObject({ status: 200, body: { continued: { from: on.databaseEntries, to: entries, found: 0, lost: entries - on.databaseEntries } } });
  expect(await admin.post('/quarantine/lift', { reason: 'once more' })).toMatchObject({ status: 409, body: { code: 'quarantine_not_on' } });
  expect(await shown(admin)).toBeNull();

  await reconcileLeases(house.running.ctx);
  await until('what only the target has is ended there', async () => !(await rolesAt(house.target)).some((role) => role.name === lostLogin.handle));
  await until(
    'what only the rows have is ended there',
    async () => (await count("FROM lease WHERE external_name = $1 AND state = 'revoked'", [returnedLogin.handle])) === 1,
  );
  const again = await granted(house);
  expect(await loginAnswer(await claimed(house, again.grant))).toBe('let in');

  await sealed();
  const good = await verified();
  expect(good).toMatchObject({ ok: true, lost: [[on.databaseEntries, entries - 1]] });
  // A text that is taken away by the same means is found: nothing in the log says that it was lost.
  const last = (await size()) - 1;
  const hash = (await query<{ hash: Buffer }>('SELECT hash FROM audit_leaf WHERE index = $1', [last]))[0]!.hash.toString('hex');
  const robbed = await verified((lines) => lines.with(last, `{"hash":"${hash}","lost":true}`));
  expect(robbed).toMatchObject({ ok: false, problem: 'lost', index: last, intactBefore: on.databaseEntries });

  const seat = await newSeat({ HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: await house.tokenOf('admin') });
  const said = await seat.run('quarantine');
  expect([said.code, said.err]).toEqual([0, 'Halligan is not in quarantine.\n']);
  await seat.close();
}, 120_000);

test('events that had no index in the backup get the one that was published; the terminal tells and lifts', async () => {
  house = await startTestHouse({ server: 'none' });
  await house.start({ worker: false });
  for (const person of ['oncall', 'lead', 'admin']) await house.tokenOf(person);
  await ask(house);
  const waiting = await count('FROM audit_pending');
  expect(waiting).toBeGreaterThan(0);
  await house.stop();
  await backUp();
  await house.start();
  await ask(house);
  await sealed();
  const entries = await size();
  await house.stop();
  await restore();
  await house.start();

  const seat = await newSeat({ HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: await house.tokenOf('admin') });
  await until('a worker has compared', async () => (await shown(await house.apiAs('admin')))?.differences ?? undefined);
  const said = await seat.run('quarantine');
  expect(said.code, said.err).toBe(0);
  expect(said.err).toMatch(
    /^▲ In quarantine since [\d: -]+ UTC: the log in the database has 0 sealed entries, and \d+ were published outside it; the database is on another server, or was made anew\.$/m,
  );
  expect(said.err).toContain('Rows and targets agree.');
  const lifted = await seat.run('quarantine', 'lift', '--reason', 'restored on purpose');
  expect(lifted.code, lifted.err).toBe(0);
  expect(lifted.err).toMatch(/^The log goes on from what was published: entries 0 to \d+ were taken over; of \d+ entr(y|ies) only the hash is known/m);
  await seat.close();

  const [witness] = await query<{ line: string }>("SELECT line FROM audit_event WHERE type = 'log.continued'");
  expect((JSON.parse(witness!.line) as { data: object }).data).toEqual({ from: 0, to: entries, found: waiting, lost: entries - waiting });
  await sealed();
  expect(await verified()).toMatchObject({ ok: true, lost: [[waiting, entries - 1]] });
}, 60_000);

test('a copy on another database is noticed although the log is whole; a first start, and a start again, are not', async () => {
  house = await startTestHouse();
  await house.tokenOf('admin');
  await sealed();
  await house.stop();
  await house.start();
  const admin = await house.apiAs('admin');
  expect(await shown(admin)).toBeNull();
  await house.stop();
  await backUp();
  await restore();
  await house.start();
  expect(await shown(admin)).toMatchObject({ causes: ['store-moved'], why: 'the database is on another server, or was made anew' });
  expect(await admin.post('/quarantine/lift', { reason: 'moved on purpose' })).toMatchObject({ status: 200, body: { continued: null } });
  await house.stop();
  await house.start();
  expect(await shown(admin)).toBeNull();

  // A server that keeps its identifier to itself: the database's own number still tells.
  await house.stop();
  await query('REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC');
  await house.start();
  expect(await shown(admin)).toBeNull();
  await house.stop();
  await backUp();
  await restore();
  await house.start();
  expect(await shown(admin)).toMatchObject({ causes: ['store-moved'] });
}, 60_000);

test('what was published and cannot be read back keeps the quarantine, with the reason', async () => {
  house = await startTestHouse();
  for (const person of ['oncall', 'admin']) await house.tokenOf(person);
  await sealed();
  await house.stop();
  await backUp();
  await house.start();
  await ask(house);
  await sealed();
  await house.stop();
  await restore();
  const file = join(house.folder, 'checkpoints', 'checkpoints.jsonl');
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  await writeFile(file, `${lines.slice(0, -1).join('\n')}\n`);
  await house.start();
  const admin = await house.apiAs('admin');
  expect(await shown(admin)).toMatchObject({ causes: ['log-ahead', 'store-moved'] });
  const refused = await admin.post('/quarantine/lift', { reason: 'go on' });
  expect(refused).toMatchObject({ status: 409, body: { code: 'conflict', detail: expect.stringContaining('The log cannot be continued') } });
  expect(await shown(admin)).not.toBeNull();
  await writeFile(file, `${lines.join('\n')}\n`);
  expect((await admin.post('/quarantine/lift', { reason: 'the file is back' })).status).toBe(200);
}, 60_000);

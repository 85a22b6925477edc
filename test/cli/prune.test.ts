/** `halligan audit prune` against a running server: what it says, what it does, and what the other commands say afterwards. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type House, startTestHouse, until } from '../support/house.ts';
import { newSeat, type Seat } from './run-cli.ts';

let house: House;
let seat: Seat;
beforeAll(async () => {
  house = await startTestHouse();
  seat = await newSeat({ HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: await house.tokenOf('auditor') });
});
afterAll(async () => {
  await seat?.close();
  await house?.close();
});
const sealed = (): Promise<unknown> =>
  until(
    'all is sealed',
    async () =>
      (await house.database.superuser.query('SELECT FROM audit_pending')).rowCount === 0 &&
      (await house.database.superuser.query('SELECT FROM audit_leaf')).rowCount! > 0,
  );

test('first it only says what would go; with --yes it goes; exports, proofs and the verifier know about it', async () => {
  await sealed();
  const [archive, checkpoints] = [join(seat.home, 'archive.jsonl'), join(seat.home, 'checkpoints.jsonl')];
  expect((await seat.run('audit', 'export', '--out', archive, '--checkpoints', checkpoints)).code).toBe(0);
  const before = new Date().toISOString();
  await house.apiAs('lead');
  await sealed();
  const prune = (...more: string[]) =>
    seat.run(
      'audit',
      'prune',
      '--config',
      house.configFile,
      '--url',
      house.database.ownerUrl,
      '--key',
      house.verifierKey,
      '--export',
      archive,
      '--before',
      before,
      ...more,
    );
  const dry = await prune();
  const lines = (await readFile(archive, 'utf8')).split('\n').length - 1;
  expect(dry, dry.err).toMatchObject({ code: 0, out: '' });
  expect(dry.err).toContain(`is the log up to entry ${lines - 1}, as it was signed and published, and as it is in the database.`);
  expect(dry.err).toContain(`To be deleted: the text of the entries 0 to ${lines - 1}, written from 20`);
  expect(dry.err).toMatch(/Nothing was deleted\. To do it, say the same with --yes\.\n$/);
  expect((await seat.run('audit', 'export')).out.split('\n').length - 1).toBeGreaterThan(lines);

  const done = await prune('--yes');
  expect(done.code, done.err).toBe(0);
  expect(JSON.parse(done.out)).toMatchObject({ from: 0, to: lines, exportSha256: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
  expect(done.err).toContain(`Keep ${archive}: nothing else has these entries any more.`);
  await sealed();

  const auditor = await house.apiAs('auditor');
  expect(await auditor.get('/audit/export')).toMatchObject({ status: 410, body: { code: 'pruned', next: `Begin at the first that is here: first=${lines}.` } });
  expect(await auditor.get('/audit/export?format=csv&first=0')).toMatchObject({ status: 410, body: { code: 'pruned' } });
  expect((await auditor.get(`/audit/export?first=${lines}`)).status).toBe(200);
  expect(await auditor.get('/audit/proof/0')).toMatchObject({ status: 410, body: { code: 'pruned' } });
  expect((await auditor.get(`/audit/proof/${lines}`)).status).toBe(200);
  expect(await auditor.get('/audit/checkpoint')).toMatchObject({ body: { first: lines, archiveSha256: JSON.parse(done.out).exportSha256 as string } });

  const [rest, newest] = [join(seat.home, 'rest.jsonl'), join(seat.home, 'newest.jsonl')];
  const again = await seat.run('audit', 'export', '--out', rest, '--checkpoints', newest);
  expect(again.code).toBe(0);
  expect(again.err).toContain(`The log was pruned: this begins at entry ${lines}.`);
  expect(again.err).toContain(`(head -n ${lines} ARCHIVE; cat ${rest}) | halligan audit verify - --key KEY --checkpoints ${newest}`);
  const whole = join(seat.home, 'whole.jsonl');
  await writeFile(whole, (await readFile(archive, 'utf8')) + (await readFile(rest, 'utf8')));
  expect((await seat.run('audit', 'verify', whole, '--key', house.verifierKey, '--checkpoints', newest)).code).toBe(0);
  // What was archived is good by itself as well, with the checkpoints of that day.
  expect((await seat.run('audit', 'verify', archive, '--key', house.verifierKey, '--checkpoints', checkpoints)).code).toBe(0);
});

test('what is wrong is said in one sentence, with 1, and nothing is deleted', async () => {
  const archive = join(seat.home, 'archive.jsonl');
  const base = ['audit', 'prune', '--config', house.configFile, '--key', house.verifierKey];
  const count = async () => (await house.database.superuser.query('SELECT FROM audit_pruned')).rowCount;
  const was = await count();
  const owner = ['--url', house.database.ownerUrl];
  const cases: [string[], RegExp][] = [
    [[...owner, '--export', archive, '--before', 'yesterday'], /--before "yesterday" is not a time/],
    [[...owner, '--export', archive, '--before', '2999-01-01'], /has not come yet/],
    [[...owner, '--export', join(seat.home, 'none.jsonl'), '--before', '2026-01-01'], /--export .*none\.jsonl cannot be read \(ENOENT\)/],
    [[...owner, '--export', archive, '--before', '2020-01-01'], /There is nothing to delete\. .*\(nothing_to_prune\)/],
    [[...owner, '--export', house.configFile, '--before', '2020-01-01'], /\((export_not_verified|not_sealed)\)/],
    [[...owner, '--export', archive, '--before', '2020-01-01', '--checkpoints', join(seat.home, 'none')], /The checkpoints .*none cannot be read \(ENOENT\)/],
    [[...owner, '--export', archive, '--before', '2020-01-01', '--key', join(house.folder, 'audit.key')], /holds the private key/],
  ];
  for (const [args, words] of cases) {
    const ran = await seat.run(...base, ...args);
    expect({ code: ran.code, out: ran.out }, ran.err).toEqual({ code: 1, out: '' });
    expect(ran.err).toMatch(words);
  }
  expect(await count()).toBe(was);
  expect((await seat.run('audit', 'prune', '--before', '2026-01-01')).code).toBe(2);
});

test('the application’s role may not: it says which role may', async () => {
  await sealed();
  const whole = join(seat.home, 'whole-again.jsonl');
  await writeFile(whole, (await readFile(join(seat.home, 'archive.jsonl'), 'utf8')) + (await seat.run('audit', 'export')).out);
  const ran = await seat.run(
    ...['audit', 'prune', '--config', house.configFile, '--url', house.database.appUrl, '--key', house.verifierKey, '--yes'],
    ...['--export', whole, '--before', new Date().toISOString()],
  );
  expect(ran.code).toBe(1);
  expect(ran.err).toContain('This role may not delete from the log. Use the one that owns the tables');
});

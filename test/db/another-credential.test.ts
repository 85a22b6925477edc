/** Migration 0002 expands only: what the version before it wrote is kept, and what it still writes beside the new version is taken. */
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrate, migrateDown } from '../../src/db/migrate.ts';
import { newId } from '../../src/domain/ids.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';

const [first, second] = ['0001_house', '0002_another_credential'];
let database: TestDatabase;
let directory: string;
beforeAll(async () => {
  database = await testDatabase({ empty: true });
  directory = await mkdtemp(join(tmpdir(), 'halligan-expand-'));
  await copyFile(`migrations/${first}.sql`, join(directory, `${first}.sql`));
});
afterAll(async () => {
  await database?.close();
  await rm(directory, { recursive: true, force: true });
});

/** The statement of the version before: may_overlap is true for AWS. */
const claimedBefore = (grant: string, overlaps: boolean, state = 'live') => {
  const id = newId('lease');
  return database.app.query(
    `INSERT INTO lease (id, grant_id, entitlement, target, kind, state, external_name, target_grant, may_overlap, handle, expires_at, revealed_at)
     VALUES ($1, $2, 'a', 't', 'aws-sts', $3, 'hg_' || $1::text, '{}', $4, 'x', now() - interval '1 s', now())`,
    [id, grant, state, overlaps],
  );
};
async function newGrant(): Promise<string> {
  const [person, request, grant] = [newId('person'), newId('request'), newId('grant')];
  await database.superuser.query("INSERT INTO person (id, issuer, subject, name, groups, groups_read_at) VALUES ($1, 'i', $1, 'n', '{}', now())", [person]);
  await database.superuser.query(
    `INSERT INTO request (id, person_id, state, entitlements, duration_seconds, reason, break_glass, policy, policy_hash, approver_groups, approver_subjects, reviewer_groups, reviewer_subjects, lapses_at, decided_at)
     VALUES ($1, $2, 'approved', '{a}', 60, 'x', false, '[]', 'x', '{}', '{}', '{}', '{}', now(), now())`,
    [request, person],
  );
  await database.superuser.query(
    `INSERT INTO access_grant (id, request_id, person_id, state, break_glass, starts_at, ends_at) VALUES ($1, $2, $3, 'active', false, now(), now() + interval '1 h')`,
    [grant, request, person],
  );
  return grant;
}

test('leases side by side survive it, are still made by the version before, and its sweep still finds them; down takes it back', async () => {
  expect(await migrate({ url: database.ownerUrl, directory })).toEqual([first]);
  const grant = await newGrant();
  await claimedBefore(grant, true);
  await claimedBefore(grant, true);
  await copyFile(`migrations/${second}.sql`, join(directory, `${second}.sql`));
  expect(await migrate({ url: database.ownerUrl, directory })).toEqual([second]);
  await claimedBefore(grant, true);
  const { rowCount } = await database.app.query("SELECT FROM lease WHERE state = 'live' AND may_overlap = true AND expires_at <= now()");
  expect(rowCount).toBe(3);
  // What this version writes leaves the column to its default, for which one lease is live at a time.
  const other = await newGrant();
  await claimedBefore(other, false);
  await expect(claimedBefore(other, false, 'issuing')).rejects.toMatchObject({ constraint: 'lease_one_live_per_entitlement' });
  expect(await migrateDown({ url: database.ownerUrl, directory })).toEqual([second]);
  expect(await migrate({ url: database.ownerUrl, directory })).toEqual([second]);
});

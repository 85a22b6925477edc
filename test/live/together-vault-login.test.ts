/** Halligan's own login at Vault by its Kubernetes service account, as docs/providers.md sets it up: Vault asks a real API server whose token it is. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Target } from '../../src/domain/provider.ts';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { type Kubernetes, startKubernetes } from './servers/kubernetes.ts';
import { docsBlocks, grant, open, type VaultFixture, vaultFixture } from './vault-fixture.ts';

const accounts = `
apiVersion: v1
kind: Namespace
metadata: { name: halligan }
---
apiVersion: v1
kind: Namespace
metadata: { name: vault }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: halligan, namespace: halligan }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: vault-reviewer, namespace: vault }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: vault-reviewer }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator" }
subjects: [ { kind: ServiceAccount, name: vault-reviewer, namespace: vault } ]
`;

let fixture: VaultFixture;
let kubernetes: Kubernetes;
let jwtFile: string;

/** A token of this account by TokenRequest, for Vault only unless `audience` says otherwise, as a projected volume would hold it. */
const project = async (account = 'halligan', audience = 'vault'): Promise<void> =>
  writeFile(jwtFile, await kubernetes.kubectl(['create', 'token', account, '-n', 'halligan', `--audience=${audience}`, '--duration=10m']), { mode: 0o600 });
const connected = (): Target => fixture.connect({ auth: { method: 'kubernetes', role: 'halligan', jwtFile } });
/** Vault forgets every login that was made this way. */
const forget = (): Promise<unknown> => fixture.bao.root('PUT', 'sys/leases/revoke-prefix/auth/kubernetes');

/** Until the API server no longer knows the token: it remembers for ten seconds that one was good. */
async function untilUnknown(): Promise<void> {
  const spec = { token: (await readFile(jwtFile, 'utf8')).trim(), audiences: ['vault'] };
  for (const deadline = Date.now() + 20_000; ; await sleep(200)) {
    const path = '/apis/authentication.k8s.io/v1/tokenreviews';
    const { body } = await kubernetes.api(kubernetes.adminToken, 'POST', path, { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec });
    const { status } = body as { status?: { authenticated?: boolean } };
    if (status && !status.authenticated) return;
    if (Date.now() > deadline) throw new Error(`the API server still knows the token: ${JSON.stringify(status)}`);
  }
}

beforeAll(async () => {
  kubernetes = await startKubernetes();
  fixture = await vaultFixture();
  jwtFile = join(fixture.folder, 'projected');
  await kubernetes.apply(accounts);
  const files = { reviewer: join(fixture.folder, 'reviewer.jwt'), ca: kubernetes.caFile };
  await writeFile(files.reviewer, await kubernetes.tokenFor('vault', 'vault-reviewer'), { mode: 0o600 });
  const blocks = await docsBlocks('shell');
  expect(blocks).toHaveLength(1);
  for (const block of blocks)
    await fixture.bao.script(
      block
        .replace('https://kubernetes.example.com:6443', kubernetes.address)
        .replace('/etc/vault/kubernetes-ca.pem', files.ca)
        .replace('/etc/vault/reviewer.jwt', files.reviewer),
    );
});
afterAll(async () => {
  await fixture?.close();
  await kubernetes?.stop();
});

test('a projected token of the service account is enough, with the least rights', async () => {
  await project();
  const target = connected();
  expect(await target.check([grant], within(10))).toEqual([]);
  const lease = newLease(grant, 60);
  const session = await open(await target.issue(lease, within(10)));
  expect((await target.revoke(lease, within(10))).sessionsCut).toBe(1);
  await session.end().catch(() => undefined);
});

test('the token is read again at each login: one that was projected anew is used, and a login that is held needs none', async () => {
  await project();
  const target = connected();
  const first = newLease(grant, 60);
  await target.issue(first, within(10));
  await writeFile(jwtFile, 'not a token');
  await target.revoke(first, within(10));
  await forget();
  expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
  await project();
  const again = newLease(grant, 60);
  await target.issue(again, within(10));
  await target.revoke(again, within(10));
});

test('a token for another audience, or of another account, is not accepted', async () => {
  await kubernetes.kubectl(['create', 'serviceaccount', 'stranger', '-n', 'halligan']);
  for (const [account, audience] of [
    ['halligan', 'https://kubernetes.default.svc'],
    ['stranger', 'vault'],
  ] as const) {
    await project(account, audience);
    expect(await refusalOf(connected().issue(newLease(grant, 60), within(8))), `${account} for ${audience}`).toMatchObject({
      code: 'target_forbids',
      nothingMade: true,
      message: expect.stringContaining('auth/kubernetes, role halligan'),
      next: expect.stringContaining(jwtFile),
    });
  }
});

test('with the service account deleted, claims are refused in words, ending goes on trying, and ends the lease once the account is back', async () => {
  await project();
  const target = connected();
  const lease = newLease(grant, 120);
  const issued = await target.issue(lease, within(10));
  await kubernetes.kubectl(['delete', 'serviceaccount', 'halligan', '-n', 'halligan']);
  await untilUnknown();
  await forget();
  for (let tries = 0; tries < 2; tries += 1) {
    expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({
      code: 'target_forbids',
      nothingMade: true,
      message: expect.stringContaining("does not accept Halligan's own login"),
    });
    const ended = await refusalOf(target.revoke(lease, within(8)));
    expect(ended).toMatchObject({ code: 'target_forbids', next: expect.stringContaining('auth/kubernetes') });
    expect(JSON.stringify(ended)).not.toContain('eyJ');
  }
  expect(await fixture.users()).toEqual([issued.handle]);
  await kubernetes.kubectl(['create', 'serviceaccount', 'halligan', '-n', 'halligan']);
  await project();
  await target.revoke(lease, within(10));
  await expect(open(issued)).rejects.toMatchObject({ code: '28P01' });
  expect(await target.inspect(lease, within(5))).toEqual({ state: 'absent' });
  expect(await fixture.users()).toEqual([]);
});

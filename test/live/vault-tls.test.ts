/** A Vault target over TLS, by an authority of its own: it works, and a server that cannot prove who it is gets nothing from us, in words that say why. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { freePort } from './servers/install.ts';
import { authority, type Certificate, signed } from './vault-certificates.ts';
import { grant, open, type VaultFixture, vaultFixture } from './vault-fixture.ts';

let folder: string;
let fixture: VaultFixture;
let authorities: { own: Certificate; strange: Certificate; old: Certificate };
const address: Record<string, string> = {};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-certificates-'));
  authorities = {
    own: await authority(folder, 'own-authority'),
    strange: await authority(folder, 'strange-authority'),
    old: await authority(folder, 'old-authority', -1),
  };
  const servers = {
    good: await signed(folder, 'good', authorities.own),
    expired: await signed(folder, 'expired', authorities.own, { days: -1 }),
    elsewhere: await signed(folder, 'elsewhere', authorities.own, { names: 'DNS:vault.example.com,IP:127.9.9.9' }),
    byOld: await signed(folder, 'by-old', authorities.old),
  };
  let listeners = '';
  for (const [name, { certFile, keyFile }] of Object.entries(servers)) {
    const port = await freePort();
    address[name] = `https://127.0.0.1:${port}`;
    listeners += `listener "tcp" {\n  address = "127.0.0.1:${port}"\n  tls_cert_file = ${JSON.stringify(certFile)}\n  tls_key_file = ${JSON.stringify(keyFile)}\n}\n`;
  }
  fixture = await vaultFixture({ server: listeners });
});
afterAll(async () => {
  await fixture?.close();
  await rm(folder, { recursive: true, force: true });
});

const over = (name: string, by: Certificate | undefined) =>
  fixture.connect({ address: address[name], ...(by === undefined ? {} : { tlsCaFile: by.certFile }) });

test('over TLS, by the authority that tlsCaFile names, everything works', async () => {
  const target = over('good', authorities.own);
  expect(await target.check([grant], within(10))).toEqual([]);
  const lease = newLease(grant, 60);
  const session = await open(await target.issue(lease, within(10)));
  expect((await target.revoke(lease, within(10))).sessionsCut).toBe(1);
  await session.end().catch(() => undefined);
  expect(await target.inspect(lease, within(5))).toEqual({ state: 'absent' });
});

test.each([
  ['by an authority that nobody named', 'good', undefined, /not signed by an authority that is trusted here/, /tlsCaFile/],
  ['by another authority than the one that was named', 'good', 'strange', /not signed by an authority that is trusted here/, /tlsCaFile/],
  ['with a certificate that has expired', 'expired', 'own', /has expired \(CERT_HAS_EXPIRED\)/, /Renew it/],
  ['with an authority that has expired', 'byOld', 'old', /has expired \(CERT_HAS_EXPIRED\)/, /tlsCaFile/],
  ['with a certificate for another name', 'elsewhere', 'own', /is for another name/, /Set address/],
] as const)('a server that answers %s is told nothing, and both claims and the check say why', async (_name, server, by, message, next) => {
  const target = over(server, by && authorities[by]);
  const wanted = { code: 'target_unreachable', message: expect.stringMatching(message), next: expect.stringMatching(next) };
  const lease = newLease(grant, 60);
  expect(await refusalOf(target.issue(lease, within(8)))).toMatchObject({ ...wanted, nothingMade: true });
  expect(await refusalOf(target.revoke(lease, within(8)))).toMatchObject(wanted);
  expect(await target.check([grant], within(8))).toEqual([{ message: wanted.message, next: wanted.next }]);
  const direct = fixture.connect();
  expect(await direct.sweep(within(5))).toEqual([]);
  expect(await fixture.users()).toEqual([]);
});

test('an authority that was renewed in its file is used at the next try; a file without one says so', async () => {
  const caFile = join(folder, 'authority.pem');
  await writeFile(caFile, await readFile(authorities.strange.certFile));
  const target = fixture.connect({ address: address['good'], tlsCaFile: caFile });
  expect((await refusalOf(target.issue(newLease(grant, 60), within(8)))).code).toBe('target_unreachable');
  for (const content of ['', 'not a certificate\n']) {
    await writeFile(caFile, content);
    expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({
      code: 'target_unreachable',
      nothingMade: true,
      message: expect.stringMatching(/authority|empty/),
    });
  }
  await writeFile(caFile, await readFile(authorities.own.certFile));
  const lease = newLease(grant, 60);
  await target.issue(lease, within(10));
  await target.revoke(lease, within(10));
});

test('what speaks no TLS is told apart', async () => {
  const target = fixture.connect({ address: `https://127.0.0.1:${fixture.bao.port}`, tlsCaFile: authorities.own.certFile });
  expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({
    code: 'target_unreachable',
    nothingMade: true,
    message: expect.stringContaining('does not speak TLS'),
  });
});

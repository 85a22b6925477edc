/** One request, one approval, one grant, three leases at three kinds of target, one kill switch: by API, by terminal and by page, on the real servers. */
import { spawnSync } from 'node:child_process';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { loginAs } from '../support/browserless-login.ts';
import { until } from '../support/house.ts';
import { install } from './servers/kubernetes.ts';
import { awsRole, type Claim, readsShop, startTogether, type Together, targets, three } from './together-house.ts';

let all: Together;
beforeAll(async () => {
  all = await startTogether();
});
afterAll(() => all?.close());

const text = async (path: string, person = 'oncall'): Promise<string> => (await (await loginAs(all.house.url, person)).fetch(path)).text();
const claimThree = (grant: string): Promise<Claim[]> => Promise.all(three.map((name) => all.claimed(grant, name)));
/** Those of these words that a page lacks: the page itself is too long for a failure to show. */
const lacks = (page: string, words: readonly string[]): string[] => words.filter((one) => !page.includes(one));
const letIn = (claims: readonly Claim[]): Promise<boolean[]> => Promise.all(claims.map((claim) => all.letsIn(claim)));
const minutesLeft = (instant: string): number => (Date.parse(instant) - Date.now()) / 60_000;

test('what is asked for is described in the terms of each target, to the approver on the page and over the API', async () => {
  const { id } = await all.ask([...three, 'orders-kube-own'], { incident: 'INC-100' });
  const page = await text(`/requests/${id}`, 'lead');
  const request = (
    await (await all.house.apiAs('lead')).get<{ entitlements: { name: string; described: { summary: string; details: string[] } | null }[] }>(`/requests/${id}`)
  ).body;
  const said = request.entitlements.map(({ described }) => [described?.summary, ...(described?.details ?? [])].join('\n'));
  expect(said[0]).toContain('orders_ro');
  expect(said[0]).toMatch(/SELECT on .*orders/);
  expect(said[1]).toContain(`arn:aws:iam::123456789012:role/${awsRole}`);
  expect(said[1]).toContain('session policy: Deny');
  expect(said[1]).toContain('Allow s3:GetObject, s3:ListBucket');
  expect(said[2]).toContain('shop-reader');
  expect(said[2]).toMatch(/get.*list.*configmaps|configmaps.*get.*list/);
  expect(lacks(page, ['orders_ro', `role/${awsRole}`, 'shop-reader', 'by a token of its own', 'as the person'])).toEqual([]);
  expect(page.includes('could not be read')).toBe(false);
});

test('one grant, three leases that end together; the kill switch of the incident ends all three, each read back at its target', async () => {
  const { request, grant } = await all.granted(three, { incident: 'INC-200' });
  const claims = await claimThree(grant);
  expect(claims.map(({ kind }) => kind)).toEqual(['vault-database', 'aws-sts', 'kubernetes-rbac']);
  expect(await letIn(claims)).toEqual([true, true, true]);
  const endsAt = (await (await all.house.apiAs('oncall')).get<{ endsAt: string }>(`/grants/${grant}`)).body.endsAt;
  for (const { expiresAt } of claims) {
    expect(Date.parse(expiresAt)).toBeLessThanOrEqual(Date.parse(endsAt));
    expect(Date.parse(endsAt) - Date.parse(expiresAt)).toBeLessThan(2_000);
  }
  const page = await text(`/requests/${request}`);
  expect(lacks(page, [...claims.map(({ handle }) => handle), 'halligan psql orders-vault', 'halligan aws orders-aws', 'halligan kube orders-kube'])).toEqual(
    [],
  );

  const { status, body } = await (await all.house.apiAs('lead')).post<{ ended: string[] }>('/incidents/INC-200/revoke', { reason: 'it was a false alarm' });
  expect([status, body.ended]).toEqual([200, [grant]]);
  await all.ended(grant);
  expect(await letIn(claims)).toEqual([false, false, false]);
  const leases = await all.leases(grant);
  expect(leases.map(({ state, end_reason }) => [state, end_reason])).toEqual(leases.map(() => ['revoked', 'incident-closed']));
  for (const lease of leases) expect(lease.read_back_at).not.toBeNull();
  // Read at the targets by the test: no role in the database, the denial on the AWS role, no binding in the cluster.
  expect(await all.vault.users()).toEqual([]);
  const denials = [...(await all.aws.denials(awsRole)).values()].join('\n');
  expect(denials).toContain(claims[1]!.connection['sessionName']);
  expect(await all.residue()).toEqual({ users: [], records: [], objects: [] });
});

test('the terminal: psql by exec, the credential_process, and kubectl by a kubeconfig that holds no secret', async () => {
  const { grant } = await all.granted(three);
  const seat = await all.seat('oncall');
  // psql itself need not be on the machine: this is libpq's environment, read by another client.
  const client = pathToFileURL(resolve('node_modules/pg/esm/index.mjs')).href;
  const script = `import pg from ${JSON.stringify(client)}; const c = new pg.Client(); await c.connect(); console.log((await c.query(process.argv[1])).rows[0].said); await c.end();`;
  const query = await seat.run(
    'exec',
    'orders-vault',
    '--',
    globalThis.process.execPath,
    '--input-type=module',
    '-e',
    script,
    'SELECT count(*) || current_user AS said FROM orders',
  );
  expect(query.err).toMatch(/login v-\S+ in orders, until \d\d:\d\d/);
  expect([query.code, query.out]).toEqual([0, expect.stringMatching(/^40v-/)]);

  const aws = await seat.run('aws', 'orders-aws');
  expect(aws.code).toBe(0);
  const process = JSON.parse(aws.out) as Record<string, string>;
  expect(Object.keys(process)).toEqual(['Version', 'AccessKeyId', 'SecretAccessKey', 'SessionToken', 'Expiration']);
  expect(minutesLeft(process['Expiration']!)).toBeGreaterThan(15);
  expect(minutesLeft(process['Expiration']!)).toBeLessThanOrEqual(20);
  const environment = await seat.run('exec', 'orders-aws', '--', 'sh', '-c', 'echo "$AWS_ACCESS_KEY_ID $AWS_REGION $HALLIGAN_TARGET"');
  expect(environment.out).toMatch(new RegExp(`^\\S+ eu-central-1 ${targets.aws}\n$`));

  const config = await seat.run('kube', 'orders-kube');
  expect(config.code).toBe(0);
  const kubeconfig = join(seat.home, 'kubeconfig');
  // The program that the kubeconfig names is `halligan` on PATH.
  await writeFile(
    join(seat.home, 'halligan'),
    `#!/bin/sh\nexec ${JSON.stringify(globalThis.process.execPath)} ${JSON.stringify(`${globalThis.process.cwd()}/src/main.ts`)} "$@"\n`,
    { mode: 0o755 },
  );
  await writeFile(kubeconfig, config.out);
  expect(config.out).not.toMatch(/eyJ[\w-]{20}/);
  const env = { PATH: `${seat.home}:${globalThis.process.env['PATH']}` };
  const kubectl = async (...args: string[]) => seat.start([`--kubeconfig=${kubeconfig}`, ...args], { command: [join(await install(), 'kubectl')], env }).done;
  const got = await kubectl('get', 'configmaps');
  expect([got.code, got.err]).toEqual([0, expect.not.stringContaining('rror')]);
  expect((await kubectl('get', 'secrets')).err).toContain('Forbidden');

  expect((await seat.run('return', 'orders-vault')).code).toBe(0);
  await all.ended(grant);
  const after = await kubectl('get', 'configmaps');
  expect(after.code).not.toBe(0);
  expect(after.err).toMatch(/grant|halligan request/);
  for (const verb of ['aws', 'kube']) expect((await seat.run(verb, `orders-${verb}`)).code).not.toBe(0);
});

test('invariant 23: a second claim replaces at Vault; at AWS and Kubernetes it gives one more credential of the same lease, and the earlier one ends with the grant', async () => {
  const { request, grant } = await all.granted(three);
  const first = await claimThree(grant);
  const second = await claimThree(grant);
  expect(await letIn(second)).toEqual([true, true, true]);
  await until('the replaced one is refused', async () => !(await all.letsIn(first[0]!)), 20_000);
  expect(await letIn(first)).toEqual([false, true, true]);
  expect(second.map(({ lease }, at) => lease === first[at]!.lease)).toEqual([false, true, true]);
  const leases = await all.leases(grant);
  const of = (claim: Claim) => leases.find(({ id }) => id === claim.lease)!;
  expect(first.map((claim) => of(claim).end_reason)).toEqual(['replaced', null, null]);
  for (const claim of [...first, ...second])
    for (const by of ['oncall-2', 'lead', 'admin', null] as const)
      expect((await (await all.house.apiAs(by)).post(`/grants/${claim.grant}/leases`, { entitlement: claim.entitlement })).status).toBe(
        by === null ? 401 : 404,
      );

  const holder = await loginAs(all.house.url, 'oncall');
  const shown = await (await holder.submit(`/grants/${grant}/claim`, { entitlement: 'orders-aws', request })).text();
  expect(
    lacks(shown, ['Secret access key', 'claiming again makes one more credential of this login; the earlier one goes on', 'halligan aws orders-aws']),
  ).toEqual([]);
  await (await all.house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await all.ended(grant);
  expect(await letIn([...first, ...second])).toEqual([false, false, false, false, false, false]);
});

test("a cluster that is opened for one's own login: the answer, the page and the terminal say what to do", async () => {
  const { request, grant } = await all.granted(['orders-kube-own']);
  const table = async (): Promise<string> => /<h2 id="use">[\s\S]*?<\/table>/.exec(await text(`/requests/${request}`))?.[0] ?? '';
  const terminal = 'halligan kube orders-kube-own --user NAME';
  const unopened = await table();
  expect(lacks(unopened, ['not open yet', '<code>kubectl</code> as yourself', 'there is nothing to copy', 'Open it', terminal])).toEqual([]);
  expect(['no login yet', 'shown once', 'needs no copying'].filter((words) => unopened.includes(words))).toEqual([]);
  const before = await readsShop(all.kubernetes, { connection: { mode: 'user' }, secret: {} } as unknown as Claim);
  expect(before.status).toBe(403);
  const claim = await all.claimed(grant, 'orders-kube-own');
  expect(claim.secret).toEqual({});
  expect(claim.connection).toMatchObject({ mode: 'user', user: 'oidc:oncall', server: all.kubernetes.address, namespace: 'shop' });
  expect(await all.letsIn(claim)).toBe(true);

  const page = await (await (await loginAs(all.house.url, 'oncall')).submit(`/grants/${grant}/claim`, { entitlement: 'orders-kube-own', request })).text();
  expect(lacks(page, [`Your own login at ${targets.kube}`, 'oidc:oncall', 'halligan kube orders-kube-own --user'])).toEqual([]);
  expect(['This is shown once', 'What is blurred'].filter((words) => page.includes(words))).toEqual([]);

  const opened = await table();
  expect(lacks(opened, ['live', '<code>kubectl</code> as yourself', 'until <time', 'Open again', terminal])).toEqual([]);
  expect(['claiming again', 'shown once', 'needs no copying'].filter((words) => opened.includes(words))).toEqual([]);

  const seat = await all.seat('oncall');
  const plain = await seat.run('kube', 'orders-kube-own');
  expect(plain.out).toBe('');
  expect(plain.err).toMatch(/open for your own login there, oidc:oncall, until \d\d:\d\d:\d\d UTC/);
  expect(plain.err).toContain('halligan kube orders-kube-own --user');
  const entry = await seat.run('kube', 'orders-kube-own', '--user', 'me');
  expect([entry.code, JSON.parse(entry.out)]).toMatchObject([0, { contexts: [{ context: { user: 'me', namespace: 'shop' } }] }]);
  await (await all.house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await all.ended(grant);
  expect(await all.letsIn(claim)).toBe(false);
});

test('a role that was edited between request and claim stops the claim in words, at each kind, and leaves nothing', async () => {
  const { grant } = await all.granted(three);
  const role = (await all.vault.bao.root('GET', 'database/roles/orders-ro')) as { data: { creation_statements: string[] } };
  const rules = 'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: { name: shop-reader, namespace: shop }\nrules:\n';
  const setRules = (resources: string): Promise<string> =>
    all.kubernetes.apply(`${rules}  - { apiGroups: [""], resources: [${resources}], verbs: [get, list] }\n`);
  const { DeleteRolePolicyCommand, PutRolePolicyCommand } = await import('@aws-sdk/client-iam');
  const edited = { RoleName: awsRole, PolicyName: 'added-later' };
  const more = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 's3:DeleteObject', Resource: '*' }] };
  await all.vault.bao.root('POST', 'database/roles/orders-ro', { ...role.data, creation_statements: [...role.data.creation_statements, 'SELECT 1;'] });
  await all.aws.iam.send(new PutRolePolicyCommand({ ...edited, PolicyDocument: JSON.stringify(more) }));
  await setRules('configmaps, secrets');
  try {
    const answers = await Promise.all(three.map((name) => all.claim(grant, name)));
    for (const [index, { status, body }] of answers.entries()) {
      expect([three[index], status, body.code]).toEqual([three[index], 409, 'policy_changed']);
      expect(body.detail).toContain(`What ${three[index]} opens`);
      expect(body.next).toContain('Ask again');
    }
    expect((await all.leases(grant)).map(({ state }) => state)).toEqual(['void', 'void', 'void']);
    expect(await all.residue()).toEqual({ users: [], records: [], objects: [] });
  } finally {
    await all.vault.bao.root('POST', 'database/roles/orders-ro', role.data);
    await all.aws.iam.send(new DeleteRolePolicyCommand(edited));
    await setRules('configmaps');
  }
  // As it was: the grant is worth again what was approved.
  const claims = await claimThree(grant);
  expect(await letIn(claims)).toEqual([true, true, true]);
  await (await all.house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await all.ended(grant);
});

test('the doctor names every target, and the one that is broken', async () => {
  const well = await all.doctor();
  expect([well.code, well.out]).toEqual([0, expect.stringMatching(/^TARGET/)]);
  for (const [name, kind] of [
    [targets.vault, 'vault-database'],
    [targets.aws, 'aws-sts'],
    [targets.kube, 'kubernetes-rbac'],
    ['orders-db', 'postgres'],
  ] as const)
    expect(well.out).toMatch(new RegExp(`^${name} +${kind} +ok`, 'm'));
  all.kubeProxy.set('refuse');
  const broken = await all.doctor('-o', 'json').finally(() => all.kubeProxy.set('pass'));
  expect(broken.code).toBe(1);
  const report = JSON.parse(broken.out) as { targets: { target: string; ok: boolean; faults: { message: string; next: string }[] }[] };
  expect(report.targets.filter(({ ok }) => !ok).map(({ target }) => target)).toEqual([targets.kube]);
  expect(report.targets.find(({ ok }) => !ok)!.faults[0]!.message).toContain(targets.kube);
});

test('what is printed is what was applied: every kind prints, twice the same, and the targets hold exactly that', async () => {
  for (const what of ['vault-policy', 'vault-setup', 'aws-policy', 'aws-trust', 'k8s-rbac']) {
    const printed = await all.print(what);
    expect(printed.length, what).toBeGreaterThan(100);
    expect(await all.print(what)).toBe(printed);
  }
  const read = (await all.vault.bao.root('GET', `sys/policies/acl/halligan-${targets.vault}`)) as { data: { policy: string } };
  expect(read.data.policy.trim()).toBe((await all.print('vault-policy')).trim());
  const folder = await mkdtemp(join(inject('server').folder, 'manifest-'));
  const manifest = join(folder, 'rights.yaml');
  await writeFile(manifest, await all.print('k8s-rbac'));
  // kubectl's own diff: 0 when the cluster holds exactly this.
  expect(await all.kubernetes.kubectl(['diff', '-f', manifest])).toBe('');
  expect(spawnSync('sh', ['-n'], { input: await all.print('vault-setup') }).status).toBe(0);
});

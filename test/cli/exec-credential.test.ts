import { expect, test } from 'vitest';
import { execCredential, kubeconfigFor } from '../../src/cli/exec-credential.ts';
import { CliFault } from '../../src/cli/fault.ts';

const ca = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
const claim = {
  kind: 'kubernetes-rbac',
  target: 'prod',
  entitlement: 'shop-debug',
  expiresAt: '2026-11-24T04:12:07.999Z',
  connection: {
    server: 'https://kube.example.com:6443',
    namespace: 'shop',
    mode: 'token',
    user: 'system:serviceaccount:halligan-leases:hg-x',
    certificateAuthority: ca,
  },
  secret: { token: 'a.b.c' },
};
const own = { ...claim, connection: { ...claim.connection, mode: 'user', user: 'oidc:ana' }, secret: {} };
const command = ['halligan', 'kube', '--exec', 'gnt_1'];

test('the exec plugin prints one ExecCredential to the letter, and its end is never later than the true one', () => {
  expect(execCredential(claim)).toBe(
    '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"expirationTimestamp":"2026-11-24T04:12:07Z","token":"a.b.c"}}\n',
  );
});

test('the kubeconfig asks for the token when it is needed, and holds none', () => {
  const text = kubeconfigFor(claim, { command });
  expect(text).not.toContain('a.b.c');
  expect(JSON.parse(text)).toEqual({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'halligan-prod', cluster: { server: 'https://kube.example.com:6443', 'certificate-authority-data': Buffer.from(ca).toString('base64') } },
    ],
    users: [
      {
        name: 'halligan-prod-shop-debug',
        user: {
          exec: {
            apiVersion: 'client.authentication.k8s.io/v1',
            command: 'halligan',
            args: ['kube', '--exec', 'gnt_1'],
            interactiveMode: 'IfAvailable',
            provideClusterInfo: false,
          },
        },
      },
    ],
    contexts: [{ name: 'halligan-prod-shop-debug', context: { cluster: 'halligan-prod', user: 'halligan-prod-shop-debug', namespace: 'shop' } }],
    'current-context': 'halligan-prod-shop-debug',
  });
});

test("for one's own login there is no token, and the kubeconfig names one's own user", () => {
  expect(() => execCredential(own)).toThrow(CliFault);
  expect(() => kubeconfigFor(own, { command })).toThrow(CliFault);
  const config = JSON.parse(kubeconfigFor(own, { command, ownUser: 'me@work' })) as Record<string, unknown>;
  expect(config['users']).toBeUndefined();
  expect(config['contexts']).toEqual([{ name: 'halligan-prod-shop-debug', context: { cluster: 'halligan-prod', user: 'me@work', namespace: 'shop' } }]);
});

test('another kind is refused, without its secret', () => {
  for (const work of [() => execCredential({ ...claim, kind: 'postgres' }), () => kubeconfigFor({ ...claim, kind: 'postgres' }, { command })])
    expect(work).toThrow(expect.objectContaining({ name: 'CliFault', message: expect.not.stringContaining('a.b.c') }));
});

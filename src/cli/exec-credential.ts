/**
 * A claimed Kubernetes credential in the forms that kubectl reads: what an exec plugin prints (client.authentication.k8s.io/v1),
 * and the kubeconfig entry that calls us. Pure: secrets pass through here and are kept nowhere.
 */
import { CliFault } from './fault.ts';
import { line } from './text.ts';
import type { WireClaim } from './wire.ts';

/** What a claim of the kind `kubernetes-rbac` holds. */
type Claim = Pick<WireClaim, 'kind' | 'target' | 'entitlement' | 'expiresAt' | 'connection' | 'secret'>;

function must(claim: Claim): void {
  if (claim.kind !== 'kubernetes-rbac')
    throw new CliFault(`A login of the kind ${line(claim.kind)} is none for kubectl.`, { next: 'halligan creds … -o json' });
}

/** RFC 3339 in whole seconds, never later than the instant itself: kubectl asks anew from then on. */
const wholeSeconds = (instant: string): string => `${new Date(Math.floor(new Date(instant).getTime() / 1_000) * 1_000).toISOString().slice(0, 19)}Z`;

/**
 * The `ExecCredential` for kubectl, on one line (Kubernetes documentation, "client-go credential plugins", output formats).
 * Throws when the entitlement opens the cluster for the person's own login, where there is no credential to give.
 */
export function execCredential(claim: Claim): string {
  must(claim);
  const { token } = claim.secret;
  if (token === undefined)
    throw new CliFault(`${line(claim.entitlement)} opens the cluster for your own login there, so there is no token to give.`, {
      next: 'Use your own user in kubeconfig: it may until the grant ends.',
    });
  return `${JSON.stringify({
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { expirationTimestamp: wholeSeconds(claim.expiresAt), token },
  })}\n`;
}

export interface EntryOptions {
  /** The program and its arguments that print the `ExecCredential`: `halligan`, `kube`, `--exec`, the grant. */
  readonly command: readonly string[];
  /** The user of one's own kubeconfig that logs in at the cluster, for entitlements that open it for one's own login. */
  readonly ownUser?: string;
}

/** A kubeconfig of its own with one cluster, one context and, in token mode, a user whose token is asked for when it is needed. It holds no secret. As JSON, which is YAML. */
export function kubeconfigFor(claim: Claim, options: EntryOptions): string {
  must(claim);
  const { server, namespace, certificateAuthority, mode } = claim.connection;
  if (!server) throw new CliFault('The claim does not say where the cluster is.', { next: 'halligan creds … -o json' });
  const name = `halligan-${claim.target}`;
  const user = mode === 'user' ? (options.ownUser ?? '') : `${name}-${claim.entitlement}`;
  if (user === '')
    throw new CliFault(`${line(claim.entitlement)} opens the cluster for your own login there.`, {
      next: 'Name the user of your kubeconfig that logs in there.',
    });
  const [command = 'halligan', ...args] = options.command;
  const exec = { apiVersion: 'client.authentication.k8s.io/v1', command, args, interactiveMode: 'IfAvailable', provideClusterInfo: false };
  const context = `${name}-${claim.entitlement}`;
  return `${JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        {
          name,
          cluster: { server, ...(certificateAuthority ? { 'certificate-authority-data': Buffer.from(certificateAuthority).toString('base64') } : {}) },
        },
      ],
      ...(mode === 'user' ? {} : { users: [{ name: user, user: { exec } }] }),
      contexts: [{ name: context, context: { cluster: name, user, ...(namespace ? { namespace } : {}) } }],
      'current-context': context,
    },
    null,
    2,
  )}\n`;
}

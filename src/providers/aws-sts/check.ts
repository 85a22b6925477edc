/** Everything that can be wrong with an AWS target before anybody needs it. Rights are tried, with calls that change nothing, because only AWS knows all its rules. */
import { DeleteRolePolicyCommand, GetRolePolicyCommand, ListRolePoliciesCommand, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { AssumeRoleCommand, GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import { ProviderError, type TargetFault } from '../../domain/provider.ts';
import type { Grant, Role } from './config.ts';
import { type Door, saidOf } from './door.ts';
import { assumption } from './issue.ts';
import { type FoundRole, givableRole, type RoleReader } from './roles.ts';
import { sessionPolicy } from './session-policy.ts';

/** At most this far may AWS's clock be from ours. */
const mostSkewSeconds = 5;
/** No policy is ever called this, so deleting it changes nothing and shows whether it may be deleted. */
const noSuchPolicy = 'halligan-check';

const asFault = (error: ProviderError): TargetFault => ({ message: error.message, next: error.next ?? 'Try again; if it stays, look at the account.' });

async function collect(work: () => Promise<TargetFault[]>): Promise<TargetFault[]> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ProviderError) return [asFault(error)];
    throw error;
  }
}

/** All faults at once. An account that cannot be reached, or is another, has one: that. */
export async function checkAccount(door: Door, readRole: RoleReader, grants: readonly Grant[], signal: AbortSignal): Promise<TargetFault[]> {
  return collect(async () => {
    const { Account: account, Arn: arn } = await door.run(signal, 'asking who Halligan is', ({ sts }, abortSignal) =>
      sts.send(new GetCallerIdentityCommand({}), { abortSignal }),
    );
    const faults: TargetFault[] = [];
    if (account !== door.config.account)
      faults.push({
        message: `${door.name}: Halligan's own access (${arn}) belongs to the account ${account}, and the target is ${door.config.account}, whose roles it cannot look at.`,
        next: `Give Halligan a role in ${door.config.account} (webIdentity), or correct "account".`,
      });
    if (/:root$/.test(arn ?? ''))
      faults.push({
        message: `${door.name}: Halligan's own access is the account's root user, which is far more than it needs.`,
        next: 'Give it a role with what halligan print aws-policy prints.',
      });
    const skew = Math.round(Math.abs(door.skewSeconds()));
    if (skew > mostSkewSeconds)
      faults.push({ message: `${door.name}: AWS's clock and this machine's are ${skew} s apart.`, next: 'Synchronise the clock of this machine (NTP).' });
    if (faults.length > 0) return faults;
    const perGrant = await Promise.all(grants.map((grant) => collect(() => checkGrant(door, readRole, grant, signal))));
    return [...new Map(perGrant.flat().map((fault) => [fault.message, fault])).values()];
  });
}

async function checkGrant(door: Door, readRole: RoleReader, grant: Grant, signal: AbortSignal): Promise<TargetFault[]> {
  const role = await readRole(givableRole(door, grant), signal, true);
  const rights = door.config.earlyEnd ? await checkRights(door, role, signal) : [];
  return [...rights, ...(await collect(() => tryAssuming(door, role, grant, signal)))];
}

/** A real session under a name that no lease has, whose policy was over in 1970: it proves trust, rights, tags and the packed size, and can do nothing. */
async function tryAssuming(door: Door, role: FoundRole, grant: Grant, signal: AbortSignal): Promise<TargetFault[]> {
  const asLease = {
    leaseId: `lse_${'0'.repeat(32)}`,
    externalName: '',
    grantId: `gnt_${'0'.repeat(32)}`,
    person: '(halligan-check)',
    endsAt: new Date(0),
    grant,
  };
  const asked = { ...assumption(asLease, role, 0, await door.chained(signal)), RoleSessionName: 'hg_check', Policy: sessionPolicy(grant, new Date(0)) };
  try {
    await door.run(signal, `taking the role ${role.name} for a check`, ({ sts }, abortSignal) => sts.send(new AssumeRoleCommand(asked), { abortSignal }));
    return [];
  } catch (error) {
    if (!(error instanceof ProviderError) || saidOf(error).code !== 'AccessDenied') throw error;
    return [
      {
        message: error.message,
        next: `Halligan's own role needs what halligan print aws-policy prints, and ${role.name} must trust it as halligan print aws-trust prints; both must allow sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity.`,
      },
    ];
  }
}

/** Each right that ending a session needs. A refusal for want of a right comes before any other, so whatever else is answered shows that the right is there. */
async function checkRights(door: Door, role: Role, signal: AbortSignal): Promise<TargetFault[]> {
  const named = { RoleName: role.name, PolicyName: noSuchPolicy };
  const tries: [right: string, call: (iam: Parameters<Parameters<Door['run']>[2]>[0]['iam'], abortSignal: AbortSignal) => Promise<unknown>][] = [
    ['iam:ListRolePolicies', (iam, abortSignal) => iam.send(new ListRolePoliciesCommand({ RoleName: role.name }), { abortSignal })],
    ['iam:GetRolePolicy', (iam, abortSignal) => iam.send(new GetRolePolicyCommand(named), { abortSignal })],
    // Not a policy: refused as malformed, after the right to put one was judged.
    ['iam:PutRolePolicy', (iam, abortSignal) => iam.send(new PutRolePolicyCommand({ ...named, PolicyDocument: '{}' }), { abortSignal })],
    ['iam:DeleteRolePolicy', (iam, abortSignal) => iam.send(new DeleteRolePolicyCommand(named), { abortSignal })],
  ];
  const missing = await Promise.all(
    tries.map(async ([right, call]) => {
      try {
        await door.run(signal, `trying ${right}`, ({ iam }, abortSignal) => call(iam, abortSignal));
        return [];
      } catch (error) {
        const { code } = saidOf(error);
        if (code === 'AccessDenied') return [right];
        if (code === 'NoSuchEntity' || code === 'MalformedPolicyDocument') return [];
        throw error;
      }
    }),
  );
  const lacking = missing.flat();
  if (lacking.length === 0) return [];
  return [
    {
      message: `${door.name}: Halligan lacks ${lacking.join(', ')} on ${role.arn}, without which no session of it can be ended early.`,
      next: 'Give it what halligan print aws-policy prints; or, if the role cannot be edited, say earlyEnd: false for the target.',
    },
  ];
}

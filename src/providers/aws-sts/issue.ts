/** Making a session: AssumeRole under the lease's name, for the person, with a session policy that ends with the grant. */
import { AssumeRoleCommand, type AssumeRoleCommandInput } from '@aws-sdk/client-sts';
import { failpoint } from '../../domain/failpoint.ts';
import { isId } from '../../domain/ids.ts';
import { type Issued, type LeaseSpec, ProviderError } from '../../domain/provider.ts';
import type { Grant } from './config.ts';
import { type Door, mayHaveHappened, saidOf } from './door.ts';
import { type FoundRole, givableRole, type RoleReader } from './roles.ts';
import { awsInstant, sessionPolicy } from './session-policy.ts';

/** STS issues nothing shorter (STS API Reference, AssumeRole, `DurationSeconds`), and an hour at most to a session. */
const shortestSeconds = 900;
const longestChainedSeconds = 3_600;

/** The session's name. A lease id is always one that AWS takes; anything else is not a lease of ours. */
export function sessionNameOf(leaseId: string): string {
  if (isId('lease', leaseId)) return leaseId;
  throw new ProviderError('target_forbids', `${JSON.stringify(leaseId.slice(0, 80))} is not the id of a lease.`, { nothingMade: true });
}

/** `Ana Test (per_…)` → `per_…`: what CloudTrail shows as the source identity (2 to 64 of `[\w+=,.@-]`), never beginning with `aws:`. */
export function sourceIdentityOf(person: string): string {
  const [, id] = /\(([\w+=,.@-]{2,64})\)$/.exec(person) ?? [];
  if (id !== undefined) return id;
  const plain = person.replace(/[^A-Za-z0-9_+=,.@-]+/g, '-').slice(0, 64);
  return plain.length >= 2 ? plain : 'unnamed';
}

/** What is asked of STS. `seconds` is clamped to what STS and the role allow; the session policy ends earlier where the grant does. */
export function assumption(spec: LeaseSpec, role: FoundRole, seconds: number, chained: boolean): AssumeRoleCommandInput {
  const grant = spec.grant as Grant;
  const most = chained ? Math.min(longestChainedSeconds, role.mostSeconds) : role.mostSeconds;
  return {
    RoleArn: role.arn,
    RoleSessionName: sessionNameOf(spec.leaseId),
    SourceIdentity: sourceIdentityOf(spec.person),
    DurationSeconds: Math.min(Math.max(shortestSeconds, Math.ceil(seconds)), most),
    Policy: sessionPolicy(grant, spec.endsAt),
    Tags: [
      { Key: 'halligan', Value: 'lease' },
      { Key: 'halligan:lease', Value: spec.leaseId },
      { Key: 'halligan:grant', Value: spec.grantId },
      ...Object.entries(grant.tags ?? {}).map(([Key, Value]) => ({ Key, Value })),
    ],
  };
}

/** A session that does what its role and the grant's policy both allow, until the grant's end. Its keys may end earlier: see `expiresAt`. */
export async function issue(door: Door, readRole: RoleReader, spec: LeaseSpec, signal: AbortSignal): Promise<Issued> {
  const { name, config } = door;
  try {
    const role = await readRole(givableRole(door, spec.grant as Grant), signal);
    const chained = await door.chained(signal);
    // By AWS's clock as far as it is known: the end is judged there.
    const seconds = (spec.endsAt.getTime() - door.now().getTime()) / 1_000;
    if (seconds <= 0)
      throw new ProviderError('target_failed', `${name}: by AWS's clock (${door.now().toISOString()}) the grant is already over.`, { nothingMade: true });
    const asked = assumption(spec, role, seconds, chained);
    const answer = await door.run(signal, `taking the role ${role.name}`, ({ sts }, abortSignal) => sts.send(new AssumeRoleCommand(asked), { abortSignal }));
    await failpoint('aws.assumed');
    const { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, SessionToken: sessionToken, Expiration: over } = answer.Credentials ?? {};
    if (!accessKeyId || !secretAccessKey || !sessionToken || !over) throw new ProviderError('target_failed', `${name} answered without credentials.`);
    const end = new Date(awsInstant(spec.endsAt));
    return {
      handle: accessKeyId,
      expiresAt: over < end ? over : end,
      connection: { accessKeyId, region: config.region, account: config.account, role: role.arn, sessionName: asked.RoleSessionName ?? '' },
      secret: { secretAccessKey, sessionToken },
    };
  } catch (error) {
    throw error instanceof ProviderError ? inClaimsWords(error, door, spec.grant as Grant) : error;
  }
}

/** The refusal with what to do about it in terms of this entitlement, and whether anything can have been made. */
function inClaimsWords(error: ProviderError, { name }: Door, grant: Grant): ProviderError {
  const said = saidOf(error);
  const nothingMade = error.nothingMade || !mayHaveHappened(error);
  const more = { nothingMade, ...(error.retryAt === undefined ? {} : { retryAt: error.retryAt }) };
  const tags = Object.keys(grant.tags ?? {}).length;
  if (said.code === 'PackedPolicyTooLarge')
    return new ProviderError('target_forbids', error.message, {
      ...more,
      next: `Shorten the policy of the entitlement's grant (${JSON.stringify(grant.policy ?? {}).length} characters)${tags > 0 ? `, or its ${tags} tags` : ''}.`,
    });
  if (/MaxSessionDuration/.test(said.message))
    return new ProviderError('target_forbids', `${name}: ${said.message}.`, {
      ...more,
      next: "Raise the role's maximum session duration, or wait a minute: it was just changed.",
    });
  return new ProviderError(error.code as ConstructorParameters<typeof ProviderError>[0], error.message, {
    ...more,
    ...(error.next === undefined ? {} : { next: error.next }),
  });
}

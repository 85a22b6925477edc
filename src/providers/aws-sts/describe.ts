/** What a role really opens, read from IAM, for the person who must approve it: who may take it, its policies statement by statement, and what the session policy leaves of them. */
import { GetPolicyCommand, GetPolicyVersionCommand, GetRolePolicyCommand, ListAttachedRolePoliciesCommand, ListRolePoliciesCommand } from '@aws-sdk/client-iam';
import { type Description, ProviderError } from '../../domain/provider.ts';
import type { Grant } from './config.ts';
import { overAt } from './deny.ts';
import { type Door, oneLine, saidOf } from './door.ts';
import { givableRole, type RoleReader } from './roles.ts';
import { policyInWords, statementsInWords } from './session-policy.ts';

const mostLines = 200;

/** Throws what `givableRole` and the reading of the role throw; a policy that Halligan may not read is said to be unread. */
export async function describeGrant(door: Door, readRole: RoleReader, grant: Grant, signal: AbortSignal): Promise<Description> {
  const role = await readRole(givableRole(door, grant), signal, true);
  const [attached, inline] = await Promise.all([describeAttached(door, role.name, signal), describeInline(door, role.name, signal)]);
  const given = policyInWords(grant);
  const tags = Object.entries(grant.tags ?? {}).map(([name, value]) => `session tag: ${name} = ${value}`);
  const trust = statementLines('trust', role.trust);
  const lines = [...given, ...tags, ...attached.lines, ...inline.lines, ...trust].map(oneLine);
  const names = [...attached.names, ...inline.names];
  const what =
    grant.policy === undefined
      ? 'everything that it may do'
      : `${grant.policy.Statement.length === 1 ? '1 statement' : `${grant.policy.Statement.length} statements`} of what it may do`;
  const details = lines.length > mostLines ? [...lines.slice(0, mostLines - 1), `and ${lines.length - mostLines + 1} more`] : lines;
  return {
    summary: oneLine(`a session of ${role.arn}: ${what}; the role has ${names.length > 0 ? names.join(', ') : 'no policies that could be read'}`),
    details,
  };
}

interface Read {
  readonly names: string[];
  readonly lines: string[];
}

/** The statements of a document, or, where it cannot be understood, the document. Trust is told by its principals. */
function statementLines(source: string, document: string): string[] {
  try {
    const { Statement: statements } = JSON.parse(document) as { Statement: unknown };
    if (source !== 'trust') return statementsInWords(source, statements);
    return (Array.isArray(statements) ? statements : [statements]).map(
      (one: { Effect?: unknown; Principal?: unknown; Condition?: unknown }) =>
        `trust: ${String(one.Effect)} ${JSON.stringify(one.Principal)}${one.Condition === undefined ? '' : ` when ${JSON.stringify(one.Condition)}`}`,
    );
  } catch {
    return [`${source}: ${document}`];
  }
}

/** What Halligan has no right to read is a line of its own; every other failure is the caller's. */
async function unlessForbidden(source: string, work: () => Promise<string[]>): Promise<string[]> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ProviderError && saidOf(error).code === 'AccessDenied') return [`${source}: could not be read, because Halligan lacks the right to`];
    throw error;
  }
}

async function describeAttached(door: Door, roleName: string, signal: AbortSignal): Promise<Read> {
  const names: string[] = [];
  const lines = await unlessForbidden('attached policies', async () => {
    const { AttachedPolicies: attached = [] } = await door.run(signal, 'reading the attached policies', ({ iam }, abortSignal) =>
      iam.send(new ListAttachedRolePoliciesCommand({ RoleName: roleName, MaxItems: 100 }), { abortSignal }),
    );
    names.push(...attached.map(({ PolicyName: name }) => name ?? ''));
    const read = attached.map(({ PolicyArn: arn = '', PolicyName: name = '' }) => unlessForbidden(name, () => readManaged(door, arn, name, signal)));
    return (await Promise.all(read)).flat();
  });
  return { names, lines };
}

async function readManaged(door: Door, arn: string, name: string, signal: AbortSignal): Promise<string[]> {
  const { Policy: policy } = await door.run(signal, `reading ${name}`, ({ iam }, abortSignal) =>
    iam.send(new GetPolicyCommand({ PolicyArn: arn }), { abortSignal }),
  );
  const version = policy?.DefaultVersionId ?? '';
  const { PolicyVersion: found } = await door.run(signal, `reading ${name}`, ({ iam }, abortSignal) =>
    iam.send(new GetPolicyVersionCommand({ PolicyArn: arn, VersionId: version }), { abortSignal }),
  );
  return statementLines(`${name} (${version})`, decodeURIComponent(found?.Document ?? ''));
}

/** The role's own inline policies; ours, which only deny, change with every early end and are left out. */
async function describeInline(door: Door, roleName: string, signal: AbortSignal): Promise<Read> {
  const names: string[] = [];
  const lines = await unlessForbidden('inline policies', async () => {
    const { PolicyNames: found = [] } = await door.run(signal, 'reading the inline policies', ({ iam }, abortSignal) =>
      iam.send(new ListRolePoliciesCommand({ RoleName: roleName, MaxItems: 100 }), { abortSignal }),
    );
    names.push(...found.filter((name) => overAt(name) === null));
    const read = names.map((name) =>
      unlessForbidden(name, async () => {
        const { PolicyDocument: document = '' } = await door.run(signal, `reading ${name}`, ({ iam }, abortSignal) =>
          iam.send(new GetRolePolicyCommand({ RoleName: roleName, PolicyName: name }), { abortSignal }),
        );
        return statementLines(name, decodeURIComponent(document));
      }),
    );
    return (await Promise.all(read)).flat();
  });
  return { names, lines };
}

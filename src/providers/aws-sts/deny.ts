/**
 * What ends a session early: an inline policy on its role that denies everything to that session. The policies are laid
 * out so that no two writers ever write the same one, because IAM has no "write only if unchanged" and its readings may be
 * stale: a name holds the quarter of an hour in which its last session is over, and its writer, which is one process. So
 * nobody merges what somebody else wrote, a process that slept can only repeat itself, and what is over is deleted whole.
 */

/** A session that is denied: `<role id>:<session name>` (IAM User Guide, `aws:userid`), and when that was surely written. */
export interface Denied {
  readonly userId: string;
  /** Seconds since 1970, AWS's time: the denial was written then or before. */
  readonly writtenAt: number;
}

const bucketMs = 15 * 60_000;
/** Sessions of the same name that were issued up to so long after the denial was written are denied too: a claim may still have been under way. */
const issueSlackSeconds = 60;
/** Of all inline policies of a role together, whitespace not counted (IAM User Guide, "IAM and STS quotas"). */
export const longestInlinePolicies = 10_240;
const prefix = 'halligan-revoked-';

/** The policy in which sessions are denied that are over at `end`. `writer` is lower-case letters and digits. */
export function policyName(end: Date, writer: string): string {
  const over = new Date(Math.ceil((end.getTime() + 1_000) / bucketMs) * bucketMs);
  return `${prefix}${over.toISOString().slice(0, 16).replaceAll(/[-:]/g, '')}Z-${writer}`;
}

/** From when on nobody needs the policy of this name; null when it is not one of ours. */
export function overAt(name: string): Date | null {
  // Only a whole match is turned into a date: the parser makes a date of nearly anything.
  const found = /^halligan-revoked-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-[a-z0-9]+$/.exec(name);
  if (!found) return null;
  const [, year, month, day, hour, minute] = found;
  const at = new Date(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
  return Number.isNaN(at.getTime()) ? null : at;
}

/**
 * The policy as text: always the same for the same entries. One statement for each moment of writing; those that AWS has
 * surely taken up by `settledBefore` (seconds) share one, so that a session costs about sixty characters.
 */
export function denyDocument(denied: Iterable<Denied>, settledBefore: number): string {
  const groups = new Map<number, Denied[]>();
  for (const one of denied) {
    const key = one.writtenAt < settledBefore ? 0 : one.writtenAt;
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  const statements = [...groups.entries()]
    .sort(([a], [b]) => a - b)
    .map(([, members]) => {
      const writtenAt = Math.max(...members.map((one) => one.writtenAt));
      return {
        Sid: `Written${writtenAt}`,
        Effect: 'Deny',
        Action: '*',
        Resource: '*',
        Condition: {
          StringEquals: { 'aws:userid': members.map((one) => one.userId).sort() },
          DateLessThan: { 'aws:TokenIssueTime': `${new Date((writtenAt + issueSlackSeconds) * 1_000).toISOString().slice(0, 19)}Z` },
        },
      };
    });
  return JSON.stringify({ Version: '2012-10-17', Statement: statements });
}

/** What AWS counts of it. */
export const countedLength = (document: string): number => document.replace(/\s/g, '').length;

/** Who is denied by a policy of ours; what somebody changed so that it no longer denies is left out. */
export function readDenied(document: string): Denied[] {
  let statements: unknown;
  try {
    statements = (JSON.parse(document) as { Statement?: unknown }).Statement;
  } catch {
    return [];
  }
  return (Array.isArray(statements) ? statements : []).flatMap((one: { [key: string]: unknown }) => {
    const writtenAt = Number(/^Written(\d{1,12})$/.exec(String(one['Sid']))?.[1]);
    const { StringEquals: equals, DateLessThan: before, ...others } = (one['Condition'] ?? {}) as Record<string, Record<string, unknown>>;
    const users = equals?.['aws:userid'];
    const issued = Date.parse(String(before?.['aws:TokenIssueTime']));
    const whole =
      one['Effect'] === 'Deny' &&
      one['Action'] === '*' &&
      one['Resource'] === '*' &&
      Object.keys({ ...others, ...equals }).length === 1 &&
      issued >= (writtenAt + issueSlackSeconds) * 1_000;
    return whole && Array.isArray(users) ? users.map((userId) => ({ userId: String(userId), writtenAt })) : [];
  });
}

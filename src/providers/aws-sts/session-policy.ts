/**
 * The inline session policy: what of the role a lease gives, and until when. AWS gives a session the intersection of this
 * and of the role's own policies (IAM User Guide, "Session policies"), and judges `aws:CurrentTime` at each call, so a
 * grant of five minutes ends after five minutes although STS issues no session shorter than fifteen.
 */
import { z } from 'zod';

/** Of a session policy as text (STS API Reference, AssumeRole, `Policy`). Its packed form has a limit of its own, which only AWS can measure. */
export const longestPlainPolicy = 2_048;

const oneOrMany = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const condition = z.record(
  z.string(),
  z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.array(z.union([z.string(), z.number(), z.boolean()]))])),
);

const statementSchema = z
  .strictObject({
    Sid: z
      .string()
      .regex(/^[A-Za-z0-9]*$/, 'may hold letters and digits only')
      .optional(),
    Effect: z.enum(['Allow', 'Deny']),
    Action: oneOrMany.optional(),
    NotAction: oneOrMany.optional(),
    Resource: oneOrMany.optional(),
    NotResource: oneOrMany.optional(),
    Condition: condition.optional(),
  })
  .superRefine((statement, ctx) => {
    const refuse = (path: string, message: string) => ctx.addIssue({ code: 'custom', path: [path], message });
    if ((statement.Action === undefined) === (statement.NotAction === undefined)) refuse('Action', 'say Action or NotAction, one of the two');
    if ((statement.Resource === undefined) === (statement.NotResource === undefined)) refuse('Resource', 'say Resource or NotResource, one of the two');
    for (const [operator, keys] of Object.entries(statement.Condition ?? {})) {
      if (!/^DateLessThan$/i.test(operator)) continue;
      if (operator !== 'DateLessThan') refuse('Condition', `writes ${operator} where AWS writes DateLessThan`);
      if (Object.keys(keys).some((key) => key.toLowerCase() === 'aws:currenttime'))
        refuse('Condition', "sets DateLessThan aws:CurrentTime, which is the grant's end and set by Halligan");
    }
  });
type Statement = z.infer<typeof statementSchema>;

/** An IAM policy without a principal, in AWS's own words. */
export const policySchema = z.strictObject({
  Version: z.literal('2012-10-17').optional(),
  // AWS takes one statement or a list. Not a union, which would say of a wrong statement only that it is wrong.
  Statement: z.preprocess((one) => (Array.isArray(one) ? one : [one]), z.array(statementSchema).min(1)),
});

export interface Given {
  readonly policy?: z.infer<typeof policySchema> | undefined;
  readonly persistence?: 'refused' | 'allowed' | undefined;
}

/** What makes access that outlives a session: users, keys, roles, policies, and sessions of other roles. It also keeps a holder from undoing what ends a session early. */
export const persistingActions = [
  ...['Add', 'Attach', 'Create', 'Deactivate', 'Delete', 'Detach', 'Enable', 'Pass', 'Put', 'Remove', 'Set', 'Update', 'Upload'].map((verb) => `iam:${verb}*`),
  'sts:AssumeRole*',
  'sts:GetFederationToken',
];

const listed = (value: string | string[] | undefined): string[] => (typeof value === 'string' ? [value] : (value ?? []));

/** Whether a pattern of actions such as `s3:Get*` or `i*:*` can mean an action of one of these services. */
function canMean(pattern: string, services: readonly string[]): boolean {
  const [service = ''] = pattern.toLowerCase().split(':');
  const form = new RegExp(
    `^${service
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
  );
  return services.some((one) => form.test(one));
}

/** Whether an allow of the policy reaches the services with which access is made. */
export const reachesPersistence = ({ policy }: Given): boolean =>
  policy === undefined ||
  policy.Statement.some(
    ({ Effect, Action, NotAction }) => Effect === 'Allow' && (NotAction !== undefined || listed(Action).some((one) => canMean(one, ['iam', 'sts']))),
  );

/** Everything of the services that an allow reaches: `s3:*`, or `*` where that cannot be told. */
function everythingReached({ policy }: Given): string[] {
  const allows = policy?.Statement.filter(({ Effect }) => Effect === 'Allow') ?? [];
  const services = allows.flatMap(({ Action }) => (Action === undefined ? ['*'] : listed(Action).map((one) => one.toLowerCase().split(':')[0] ?? '*')));
  return services.length === 0 || services.some((one) => !/^[a-z0-9-]+$/.test(one)) ? ['*'] : [...new Set(services)].sort().map((one) => `${one}:*`);
}

/** AWS's form of an instant: whole seconds. A fraction is cut off, so that the end is never late. */
export const awsInstant = (at: Date): string => `${at.toISOString().slice(0, 19)}Z`;

/**
 * The whole session policy as text. Every allow carries the end; a last deny carries it once more, because a resource's own
 * policy that names the session (its holder may be able to write one) is held back by a deny only, not by the absence of an
 * allow (IAM User Guide, "Policy evaluation logic").
 */
export function sessionPolicy(given: Given, endsAt: Date): string {
  const end = { 'aws:CurrentTime': awsInstant(endsAt) };
  const own: Statement[] = given.policy?.Statement ?? [{ Effect: 'Allow', Action: '*', Resource: '*' }];
  const timed = own.map((statement) =>
    statement.Effect === 'Deny'
      ? statement
      : { ...statement, Condition: { ...statement.Condition, DateLessThan: { ...statement.Condition?.['DateLessThan'], ...end } } },
  );
  const persisting = given.persistence !== 'allowed' && reachesPersistence(given) ? [{ Effect: 'Deny', Action: persistingActions, Resource: '*' }] : [];
  const over = { Effect: 'Deny', Action: everythingReached(given), Resource: '*', Condition: { DateGreaterThanEquals: end } };
  return JSON.stringify({ Version: '2012-10-17', Statement: [...timed, ...persisting, over] });
}

/** The policy in lines for an approver, without what is the same for every lease. */
export function policyInWords(given: Given): string[] {
  const own = given.policy === undefined ? ['session policy: everything that the role may do'] : statementsInWords('session policy', given.policy.Statement);
  if (given.persistence === 'allowed') return [...own, 'session policy: the holder may make access that outlives the grant (persistence: allowed)'];
  return reachesPersistence(given) ? [...own, `session policy: Deny ${persistingActions.join(', ')} on *`] : own;
}

/** One line for each statement of a policy as IAM gives it back; what does not look like a statement is shown as it is. */
export function statementsInWords(source: string, statements: unknown): string[] {
  const all = (Array.isArray(statements) ? statements : [statements]) as Partial<Record<string, unknown>>[];
  return all.map((one) => {
    const words = (name: string): string => (Array.isArray(one[name]) ? one[name] : [one[name]]).join(', ');
    const what = one['NotAction'] === undefined ? words('Action') : `everything but ${words('NotAction')}`;
    const where = one['NotResource'] === undefined ? words('Resource') : `everything but ${words('NotResource')}`;
    const when = one['Condition'] === undefined ? '' : ` when ${JSON.stringify(one['Condition'])}`;
    return `${source}: ${String(one['Effect'])} ${what} on ${where}${when}`;
  });
}

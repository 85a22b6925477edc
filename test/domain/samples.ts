/** Entitlements and people for the tests of the domain. */
import type { Entitlement, People } from '../../src/domain/entitlement.ts';
import type { Member } from '../../src/domain/policy.ts';

export const people = (groups: string[] = [], subjects: string[] = []): People => ({ groups, subjects });

export const member = (subject: string, ...groups: string[]): Member => ({ id: `per_${subject}`, subject, groups });

/** One that anybody on call may have for an hour with one lead's approval, changed by `more`. */
export const entitlementOf = (more: Partial<Entitlement> = {}): Entitlement => ({
  name: 'orders-readonly',
  opens: 'read the orders database',
  target: 'orders-db',
  kind: 'postgres',
  grant: { role: 'orders_ro' },
  grantInWords: 'role orders_ro',
  owner: 'the orders team',
  eligible: people(['oncall']),
  approval: [{ of: people(['leads']), count: 1 }],
  maxDurationSeconds: 3_600,
  decideWithinSeconds: 1_800,
  breakGlass: null,
  review: { of: people(['leads']), withinSeconds: 172_800 },
  ...more,
});

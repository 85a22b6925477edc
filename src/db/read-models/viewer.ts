/** Who is looking, and the condition under which they may see a request. What somebody may not see is as if it were not there. */
import { type RawBuilder, sql } from 'kysely';
import type { People } from '../../domain/entitlement.ts';
import { isOneOf, type Member } from '../../domain/policy.ts';

export interface Viewer extends Member {
  readonly name: string;
}

/** The policy's readers of everything. */
export interface Readers {
  readonly auditors: People;
  readonly admins: People;
}

export const seesEverything = (readers: Readers, viewer: Member): boolean => isOneOf(readers.auditors, viewer) || isOneOf(readers.admins, viewer);

/** True for approvers and reviewers of the request at hand (alias `request`). */
export const countsFor = (viewer: Member, role: 'approver' | 'reviewer'): RawBuilder<boolean> => {
  const groups = sql.ref(`request.${role}_groups`);
  const subjects = sql.ref(`request.${role}_subjects`);
  return sql<boolean>`(${groups} && ${sql.val([...viewer.groups])}::text[] OR ${viewer.subject} = ANY (${subjects}))`;
};

/** Requester, approvers, reviewers, auditors and admins see a request; nobody else does. */
export const maySee = (readers: Readers, viewer: Member): RawBuilder<boolean> =>
  seesEverything(readers, viewer)
    ? sql<boolean>`true`
    : sql<boolean>`(request.person_id = ${viewer.id} OR ${countsFor(viewer, 'approver')} OR ${countsFor(viewer, 'reviewer')})`;

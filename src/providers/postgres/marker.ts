/** Our marker on a role: its name begins with `hg_` and its comment with `halligan lease=`. A role without both is not ours and is never touched. */
import type pg from 'pg';
import type { LeaseRef, LeaseSpec } from '../../domain/provider.ts';
import { oneLine } from './sql.ts';

export interface FoundRole {
  readonly oid: number;
  readonly canLogin: boolean;
  /** Null: no end is set, or it is infinite. */
  readonly validUntil: Date | null;
  readonly comment: string;
}

/** What stands on the role for people who look at the target. */
export const markerOf = (spec: LeaseSpec): string =>
  `halligan lease=${spec.leaseId} grant=${spec.grantId} until=${spec.endsAt.toISOString()} person=${oneLine(spec.person)}`;

/** The lease whose marker this is, or null. */
export const leaseIn = (comment: string): string | null => /^halligan lease=(lse_[0-9a-f]{32})(?: |$)/.exec(comment)?.[1] ?? null;

/** Whether the role bears our marker for this very lease. */
export const isOurs = (ref: LeaseRef, role: FoundRole): boolean => ref.externalName.startsWith('hg_') && leaseIn(role.comment) === ref.leaseId;

/** The role under this name, read now. */
export async function readRole(client: pg.ClientBase, name: string): Promise<FoundRole | null> {
  const { rows } = await client.query<{ oid: number; canLogin: boolean; validUntil: Date | null; comment: string }>(
    `SELECT r.oid::pg_catalog.int8 AS oid, r.rolcanlogin AS "canLogin",
            CASE WHEN pg_catalog.isfinite(r.rolvaliduntil) THEN r.rolvaliduntil END AS "validUntil",
            coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), '') AS comment
       FROM pg_catalog.pg_roles r WHERE r.rolname = $1`,
    [name],
  );
  const [row] = rows;
  return row ? { ...row, oid: Number(row.oid) } : null;
}

/** The sessions that were opened by this login, in every database; what they became by SET ROLE does not hide them. */
export async function sessionsOf(client: pg.ClientBase, oid: number): Promise<number[]> {
  const { rows } = await client.query<{ pid: number }>('SELECT pid FROM pg_catalog.pg_stat_activity WHERE usesysid = $1', [oid]);
  return rows.map((row) => row.pid);
}

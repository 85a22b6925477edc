/** Our marker on a role: its name begins with `hg_` and its comment with `halligan lease=`. A role without both is not ours and is never touched. */
import type pg from 'pg';
import { type LeaseRef, type LeaseSpec, ProviderError } from '../../domain/provider.ts';
import { makerOf } from './makers.ts';
import { type Door, lockSpace, oneLine, quoteText } from './sql.ts';

export interface FoundRole {
  readonly name: string;
  readonly oid: number;
  readonly canLogin: boolean;
  /** Null: no end is set, or it is infinite. */
  readonly validUntil: Date | null;
  readonly comment: string;
  /** The helper of ours that made it and may end it (makers.ts); null when Halligan's own role does. */
  readonly maker: string | null;
  /** The target's clock. */
  readonly readAt: Date;
}

/** What stands on the role for people who look at the target. */
export const markerOf = (spec: LeaseSpec): string =>
  `halligan lease=${spec.leaseId} grant=${spec.grantId} until=${spec.endsAt.toISOString()} person=${oneLine(spec.person)}`;

/** The lease whose marker this is, or null. */
export const leaseIn = (comment: string): string | null => /^halligan lease=(lse_[0-9a-f]{32})(?: |$)/.exec(comment)?.[1] ?? null;

/** Whether the role bears our marker for this very lease. */
export const isOurs = (ref: LeaseRef, role: FoundRole): boolean => ref.externalName.startsWith('hg_') && leaseIn(role.comment) === ref.leaseId;

/** The comment on a role, as SQL. The server's own function for it is called once for each role, which tells when there are thousands. */
export const commentOf = (role: string): string =>
  `(SELECT c.description FROM pg_catalog.pg_shdescription c WHERE c.objoid = ${role}.oid AND c.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass)`;

const rolesNamed = (names: string): string =>
  `SELECT r.rolname AS name, r.oid::pg_catalog.int8::pg_catalog.float8 AS oid, r.rolcanlogin AS "canLogin",
          CASE WHEN pg_catalog.isfinite(r.rolvaliduntil) THEN r.rolvaliduntil END AS "validUntil",
          coalesce(${commentOf('r')}, '') AS comment, ${makerOf('r')} AS maker, pg_catalog.clock_timestamp() AS "readAt"
     FROM pg_catalog.pg_roles r WHERE r.rolname = ANY (${names})`;

/** The role under this name, read now. */
export async function readRole(client: pg.ClientBase, name: string): Promise<FoundRole | null> {
  const { rows } = await client.query<FoundRole>(rolesNamed('$1'), [[name]]);
  return rows[0] ?? null;
}

const namesOf = (refs: readonly LeaseRef[]): string =>
  `ARRAY[${[...new Set(refs.map((ref) => ref.externalName))].sort().map(quoteText).join(', ')}]::pg_catalog.text[]`;

/** What reads the roles of these leases, as SQL. */
export const reading = (refs: readonly LeaseRef[]): string => rolesNamed(namesOf(refs));
/** The same, keeping every other writer of theirs out until the end of the transaction; all lock in one order. */
export const lockingAndReading = (refs: readonly LeaseRef[]): string =>
  `SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(name, ${lockSpace})) FROM pg_catalog.unnest(${namesOf(refs)}) name; ${reading(refs)}`;

/** The roles of these leases among those that were found. Throws when one bears the name and not our marker. */
export function oursAmong(door: Door, refs: readonly LeaseRef[], found: readonly FoundRole[]): { ref: LeaseRef; role: FoundRole }[] {
  return found.flatMap((role) => {
    const ref = refs.find(({ externalName }) => externalName === role.name);
    if (!ref) return [];
    if (isOurs(ref, role)) return [{ ref, role }];
    throw new ProviderError(
      'target_forbids',
      `${door.name}: the role ${ref.externalName} does not bear the marker of ${ref.leaseId}, so it is not Halligan's to end.`,
      { next: 'Look at its comment there: somebody changed it, or made the role by hand.' },
    );
  });
}

/** The sessions that were opened by this login, in every database; what they became by SET ROLE does not hide them. */
export async function sessionsOf(client: pg.ClientBase, oid: number): Promise<number[]> {
  const { rows } = await client.query<{ pid: number }>('SELECT pid FROM pg_catalog.pg_stat_activity WHERE usesysid = $1', [oid]);
  return rows.map((row) => row.pid);
}

/** Whether Halligan is in quarantine after a restore, and what differs between its rows and the targets. */
import { Refusal } from '../../domain/errors.ts';
import type { Db } from '../pool.ts';
import type { Differences, QuarantineTable } from '../schema.ts';
import { type Readers, seesEverything, type Viewer } from './viewer.ts';

export interface QuarantineView {
  readonly id: string;
  readonly causes: QuarantineTable['causes'];
  readonly beganAt: Date;
  /** Entries of the log in the database, and of the published one, when it began. */
  readonly databaseEntries: number;
  readonly publishedEntries: number;
  /** Null until a worker has compared. */
  readonly differences: Differences | null;
  readonly comparedAt: Date | null;
}

/** The quarantine that is on; null when none is. */
export async function quarantineOn(db: Db): Promise<QuarantineView | null> {
  const row = await db.selectFrom('quarantine').selectAll().where('lifted_at', 'is', null).executeTakeFirst();
  if (!row) return null;
  const { id, causes, differences } = row;
  return {
    id,
    causes,
    beganAt: row.began_at,
    databaseEntries: row.database_size,
    publishedEntries: row.published_size,
    differences,
    comparedAt: row.compared_at,
  };
}

/** The same for those who run Halligan. Throws `not_eligible` for all but auditors and admins. */
export async function readQuarantine(db: Db, readers: Readers, viewer: Viewer): Promise<QuarantineView | null> {
  if (!seesEverything(readers, viewer))
    throw new Refusal('not_eligible', 'Only auditors and admins see what differs after a restore.', { next: 'roles.admins in the config says who they are.' });
  return quarantineOn(db);
}

/** Why it is on, in words. */
export function causeWords({ causes, databaseEntries, publishedEntries }: Pick<QuarantineView, 'causes' | 'databaseEntries' | 'publishedEntries'>): string {
  const older = `the log in the database has ${databaseEntries} sealed entries, and ${publishedEntries} were published outside it`;
  const moved = 'the database is on another server, or was made anew';
  return causes.map((cause) => (cause === 'log-ahead' ? older : moved)).join('; ');
}

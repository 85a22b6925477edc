/**
 * The index of open leases, in a KV engine of Vault that only Halligan uses: `…/leases/<target>/<external name>/<accessor>`.
 * An accessor is written there before a credential is read with its token, so a credential that anybody may know can always
 * be found by its lease, by any process, also after our own database was restored. It holds no secret. An attempt whose
 * token was made but never written down has read nothing, is known to nobody, and ends at the grant's end by itself.
 */
import { z } from 'zod';
import { type LeaseRef, type LeaseSpec, ProviderError } from '../../domain/provider.ts';
import { saidOf } from './answers.ts';
import { indexPath } from './config.ts';
import { anything, type Vault } from './vault.ts';

/** What is known of one token of a lease. */
export interface Attempt {
  readonly accessor: string;
  readonly lease: string;
  readonly grant: string;
  readonly person: string;
  readonly role: string;
  /** When the credential ends, as Vault said; before it is known, the grant's end. RFC 3339. */
  readonly until: string;
  /** The database user and Vault's lease of it, once the credential was read. */
  readonly username?: string | undefined;
  readonly databaseLease?: string | undefined;
  /** The user's number in the database: it still names the sessions when the user is gone. */
  readonly oid?: number | undefined;
}

const attemptShape = z.object({
  lease: z.string(),
  grant: z.string().default(''),
  person: z.string().default(''),
  role: z.string(),
  until: z.string(),
  username: z.string().optional(),
  databaseLease: z.string().optional(),
  oid: z.number().optional(),
});
const keysShape = z.object({ data: z.object({ keys: z.array(z.string()) }) });

/** Whether this is a string that may be an accessor: it becomes part of a path. */
const isAccessor = (text: string): boolean => /^[A-Za-z0-9][A-Za-z0-9._-]{7,127}$/.test(text) && !text.includes('..');
const nameShape = /^hg_(lse_[0-9a-f]{32})$/;

/** A name of ours, checked before it becomes part of a path. Throws `target_forbids` for any other. */
export function mustBeOurName(vault: Vault, ref: LeaseRef): void {
  if (nameShape.exec(ref.externalName)?.[1] !== ref.leaseId)
    throw new ProviderError('target_forbids', `${vault.name}: ${JSON.stringify(ref.externalName.slice(0, 80))} is not the name of a lease.`);
}

const folderOf = (vault: Vault, ref: LeaseRef): string => `${indexPath(vault.config, vault.name)}/${ref.externalName}`;

const noIndex = ({ name, config }: Vault): ProviderError =>
  new ProviderError('target_forbids', `${name}: there is no kv engine of version 1 for the index at ${config.indexMount}.`, {
    next: 'Run the commands of halligan print vault-setup.',
  });

async function keysIn(vault: Vault, path: string, signal: AbortSignal): Promise<string[]> {
  try {
    const { data } = await vault.call({ method: 'LIST', path, signal, doing: 'looking for leases', shape: keysShape });
    return data.keys;
  } catch (error) {
    const { status, message } = saidOf(error);
    // An empty folder and a missing engine both answer 404; only the second one says why.
    if (status === 404 && message === '') return [];
    throw status === 404 ? noIndex(vault) : error;
  }
}

/** Every lease that has an attempt at this target. */
export async function allLeases(vault: Vault, signal: AbortSignal): Promise<LeaseRef[]> {
  const keys = await keysIn(vault, indexPath(vault.config, vault.name), signal);
  return keys.flatMap((key) => {
    const externalName = key.replace(/\/$/, '');
    const leaseId = nameShape.exec(externalName)?.[1];
    return leaseId === undefined ? [] : [{ leaseId, externalName }];
  });
}

/** The accessors under which this lease was tried; usually none or one. */
export async function accessorsOf(vault: Vault, ref: LeaseRef, signal: AbortSignal): Promise<string[]> {
  mustBeOurName(vault, ref);
  return (await keysIn(vault, folderOf(vault, ref), signal)).filter(isAccessor);
}

/** What is written of one attempt; null when it is not there. */
export async function readAttempt(vault: Vault, ref: LeaseRef, accessor: string, signal: AbortSignal): Promise<Attempt | null> {
  try {
    const shape = z.object({ data: attemptShape });
    const { data } = await vault.call({ method: 'GET', path: `${folderOf(vault, ref)}/${accessor}`, signal, doing: 'reading the index of leases', shape });
    return { accessor, ...data };
  } catch (error) {
    if (saidOf(error).status === 404) return null;
    throw error;
  }
}

/** Writes what is known of an attempt, over what was there. */
export async function writeAttempt(vault: Vault, ref: LeaseRef, attempt: Attempt, signal: AbortSignal): Promise<void> {
  const { accessor, ...body } = attempt;
  const path = `${folderOf(vault, ref)}/${accessor}`;
  await vault.call({ method: 'POST', path, body, signal, doing: 'writing the index of leases', shape: anything }).catch((error: unknown) => {
    throw saidOf(error).status === 404 ? noIndex(vault) : error;
  });
}

/** The undo of `writeAttempt`, once nothing of the attempt is left. What is not there is success, also where no engine could hold it. */
export async function forgetAttempt(vault: Vault, ref: LeaseRef, accessor: string, signal: AbortSignal): Promise<void> {
  const path = `${folderOf(vault, ref)}/${accessor}`;
  await vault.call({ method: 'DELETE', path, signal, doing: 'clearing the index of leases', shape: anything }).catch((error: unknown) => {
    if (saidOf(error).status !== 404) throw error;
  });
}

/** A first attempt, before anything is known of it. */
export const newAttempt = (spec: LeaseSpec, accessor: string, role: string): Attempt => ({
  accessor,
  lease: spec.leaseId,
  grant: spec.grantId,
  person: spec.person,
  role,
  until: spec.endsAt.toISOString(),
});

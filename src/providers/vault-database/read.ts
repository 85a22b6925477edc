/** Looking at what stands in Vault: a token by its accessor, a database user's lease by its id. What is not there is null, not an error. */
import { z } from 'zod';
import { type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { saidOf } from './answers.ts';
import type { Vault } from './vault.ts';

const time = z
  .string()
  .nullish()
  .transform((text) => (text ? new Date(text) : null));
const tokenShape = z.object({ data: z.object({ expire_time: time, meta: z.record(z.string(), z.string()).nullish(), role: z.string().optional() }) });
const leaseShape = z.object({ data: z.object({ expire_time: time, renewable: z.boolean().optional() }) });

/** Whether a failure says that there is no such token. Each of Vault's calls has its own words for it. */
export function isAbsentToken(error: unknown): boolean {
  const { status, message } = saidOf(error);
  return status === 404 || (status >= 400 && /invalid accessor|token not found|no token found|cannot find/i.test(message));
}

export interface FoundToken {
  readonly expiresAt: Date | null;
}

/** The token of this accessor, or null. Throws `target_forbids` when it is not this lease's: an index that somebody edited must not make us end a stranger's token. */
export async function readToken(vault: Vault, ref: LeaseRef, accessor: string, signal: AbortSignal): Promise<FoundToken | null> {
  try {
    const { data } = await vault.call({
      method: 'POST',
      path: 'auth/token/lookup-accessor',
      body: { accessor },
      signal,
      doing: 'looking at a token',
      shape: tokenShape,
    });
    if (data.meta?.['halligan'] !== ref.leaseId)
      throw new ProviderError(
        'target_forbids',
        `${vault.name}: the token that the index names for ${ref.leaseId} does not bear its marker, so it is not Halligan's to end.`,
        {
          next: `Somebody else wrote to ${vault.config.indexMount}: look at who may.`,
        },
      );
    return { expiresAt: data.expire_time };
  } catch (error) {
    if (isAbsentToken(error)) return null;
    throw error;
  }
}

/** The lease of a database user, or null. */
export async function readDatabaseLease(vault: Vault, id: string, signal: AbortSignal): Promise<{ expiresAt: Date | null } | null> {
  try {
    const { data } = await vault.call({
      method: 'POST',
      path: 'sys/leases/lookup',
      body: { lease_id: id },
      signal,
      doing: "looking at a database user's lease",
      shape: leaseShape,
    });
    return { expiresAt: data.expire_time };
  } catch (error) {
    const { status, message } = saidOf(error);
    if (status === 404 || (status === 400 && /invalid lease|lease not found/i.test(message))) return null;
    throw error;
  }
}

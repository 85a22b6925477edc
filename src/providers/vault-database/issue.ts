/**
 * A credential for one lease: a token that nobody but Vault remembers and that ends with the grant → its accessor into the
 * index → the database user, read with that token → the user's own end drawn to the grant's. Each step's undo is `endAttempt`.
 */
import { z } from 'zod';
import { failpoint } from '../../domain/failpoint.ts';
import { type Issued, type LeaseSpec, ProviderError } from '../../domain/provider.ts';
import { failed, saidOf } from './answers.ts';
import { type Attempt, accessorsOf, mustBeOurName, newAttempt, writeAttempt } from './attempts.ts';
import { leasePolicy, type VaultGrant } from './config.ts';
import type { Probe } from './probe.ts';
import { readDatabaseLease, readToken } from './read.ts';
import { endAttempt } from './revoke.ts';
import { anything, type Vault } from './vault.ts';

const tokenShape = z.object({
  auth: z.object({ client_token: z.string(), accessor: z.string(), orphan: z.boolean(), renewable: z.boolean(), token_policies: z.array(z.string()) }),
});
const credentialShape = z.object({ lease_id: z.string(), lease_duration: z.number(), data: z.object({ username: z.string(), password: z.string() }) });
const renewShape = z.object({ lease_duration: z.number() });

/** The token ends this much before the grant, so that the time a call takes never carries it past the end. */
const earlyMs = 100;
/** A token that ends even earlier than this before the grant shows that the clocks differ by more than was believed. */
const tooEarlyMs = 900;
/** Below this nothing useful is left of a grant, and a life of zero would mean one without an end. */
const leastMs = 200;

/** Makes the credential. An earlier one of the same lease is ended first. Throws with `nothingMade` when that is certain. */
export async function issue(vault: Vault, probe: Probe | null, spec: LeaseSpec, signal: AbortSignal): Promise<Issued> {
  mustBeOurName(vault, spec);
  for (let tries = 1; ; tries += 1) {
    const made = await attempt(vault, probe, spec, signal);
    if (made) return made;
    if (tries >= 3)
      throw new ProviderError('target_failed', `${vault.name}: Vault's clock and Halligan's drift apart too fast to set an end.`, {
        next: 'Look at the time on both machines.',
      });
  }
}

/** Null: the token's end was off, because the clocks differ; now it is known by how much. */
async function attempt(vault: Vault, probe: Probe | null, spec: LeaseSpec, signal: AbortSignal): Promise<Issued | null> {
  const { role } = spec.grant as VaultGrant;
  await vault.ready(signal).catch((error: unknown) => {
    throw withNothingMade(error, true);
  });
  const began = Date.now();
  const left = spec.endsAt.getTime() - began - vault.skewMs() - earlyMs;
  if (left < leastMs) throw new ProviderError('target_failed', `${vault.name}: by Vault's clock the grant is as good as over.`, { nothingMade: true });
  let certain = true;
  let known: Attempt | undefined;
  try {
    const making = makeToken(vault, spec, role, left, signal).then((token) => {
      known = newAttempt(spec, token.auth.accessor, role);
      return { token, known };
    });
    const [{ token, known: first }, earlier] = await settled([making, spec.first ? Promise.resolve([]) : accessorsOf(vault, spec, signal)]);
    await failpoint('vault.token-made');
    if (earlier.length > 0) certain = false;
    mustBeBounded(vault, role, token);
    for (const accessor of earlier) await endAttempt(vault, probe, spec, { accessor }, signal);
    await writeAttempt(vault, spec, first, signal);
    await failpoint('vault.indexed');
    const credential = await readCredential(vault, role, token.auth.client_token, signal, () => {
      certain = false;
    });
    const made = { ...first, username: credential.data.username, databaseLease: credential.lease_id };
    known = made;
    certain = false;
    await failpoint('vault.user-made');
    const expiresAt = await settle(vault, spec, made, { left, began }, signal);
    if (expiresAt === null) {
      await endAttempt(vault, probe, spec, made, signal);
      return null;
    }
    await failpoint('vault.settled');
    const { host, port, database, tls } = vault.config;
    const { username, password } = credential.data;
    return { handle: username, expiresAt, connection: { host, port: String(port), database, user: username, sslmode: tls }, secret: { password } };
  } catch (error) {
    const nothing = known === undefined ? refusedOutright(error) : (await undo(vault, probe, spec, known, signal)) && certain;
    throw withNothingMade(error, nothing);
  }
}

/** A refusal made nothing; silence may have. */
const refusedOutright = (error: unknown): boolean => {
  const { status } = saidOf(error);
  return (status >= 400 && status < 500) || status === 503 || (error instanceof ProviderError && error.nothingMade);
};

function withNothingMade(error: unknown, nothingMade: boolean): unknown {
  if (!(error instanceof ProviderError)) return error;
  const { code, message, next, retryAt } = error;
  return failed(code as ConstructorParameters<typeof ProviderError>[0], message, saidOf(error), {
    ...(next === undefined ? {} : { next }),
    ...(retryAt ? { retryAt } : {}),
    nothingMade,
  });
}

async function makeToken(vault: Vault, spec: LeaseSpec, role: string, leftMs: number, signal: AbortSignal): Promise<z.infer<typeof tokenShape>> {
  const { tokenRole } = vault.config;
  try {
    return await vault.call({
      method: 'POST',
      path: `auth/token/create/${tokenRole}`,
      body: {
        policies: [leasePolicy(vault.config, role)],
        no_default_policy: true,
        renewable: false,
        explicit_max_ttl: `${Math.floor(leftMs)}ms`,
        display_name: spec.externalName,
        meta: { halligan: spec.leaseId, grant: spec.grantId, person: spec.person.slice(0, 200) },
      },
      signal,
      doing: 'making the token of a lease',
      shape: tokenShape,
      once: true,
    });
  } catch (error) {
    const said = saidOf(error);
    if (said.status !== 400 && said.status !== 404) throw error;
    if (await isMissing(vault, role, signal)) throw missingRole(vault, role);
    throw failed('target_forbids', `${vault.name}: Vault makes no token for ${role}: ${said.message}.`, said, {
      next: `Make the token role ${tokenRole} with ${leasePolicy(vault.config, role)} among its allowed_policies, as docs/providers.md prints it.`,
    });
  }
}

/** A token role that was set up otherwise would give tokens that die with ours, or that can be prolonged, or that may do more. */
function mustBeBounded(vault: Vault, role: string, { auth }: z.infer<typeof tokenShape>): void {
  const policy = leasePolicy(vault.config, role);
  const wrong = [
    ...(auth.orphan ? [] : ['orphan=true']),
    ...(auth.renewable ? ['renewable=false'] : []),
    ...(auth.token_policies.length === 1 && auth.token_policies[0] === policy ? [] : ['token_no_default_policy=true']),
  ];
  if (wrong.length > 0)
    throw new ProviderError('target_forbids', `${vault.name}: the token role ${vault.config.tokenRole} gives tokens that are not bound tightly enough.`, {
      next: `bao write auth/token/roles/${vault.config.tokenRole} ${wrong.join(' ')} (with its other settings)`,
    });
}

/** The one answer with the secret in it. Its errors are translated with care: a statement that failed may have held a password. */
async function readCredential(vault: Vault, role: string, token: string, signal: AbortSignal, uncertain: () => void): Promise<z.infer<typeof credentialShape>> {
  const { mount, tokenRole } = vault.config;
  try {
    return await vault.call({
      method: 'GET',
      path: `${mount}/creds/${role}`,
      token,
      signal,
      doing: 'making the database user',
      shape: credentialShape,
      deadlineMs: 60_000,
      once: true,
    });
  } catch (error) {
    const said = saidOf(error);
    const none = said.status === 404 || /unknown role/i.test(said.message);
    const notAllowed = /not an allowed role/i.test(said.message);
    if (said.status !== 403 && !none && !notAllowed) uncertain();
    if (notAllowed)
      throw failed(
        'target_forbids',
        `${vault.name}: the database connection behind ${mount}/roles/${role} does not list ${role} among its allowed roles.`,
        said,
        {
          next: `Add ${role} to its allowed_roles: bao read ${mount}/roles/${role} names the connection as db_name.`,
        },
      );
    if (none) throw missingRole(vault, role);
    if (said.status === 403)
      throw failed('target_forbids', `${vault.name}: the token of a lease may not read ${mount}/creds/${role}.`, said, {
        next: `bao policy write ${leasePolicy(vault.config, role)} - with: path "${mount}/creds/${role}" { capabilities = ["read"] }; the token role is ${tokenRole}`,
      });
    throw error;
  }
}

/** What is said when the secrets engine has no such role, wherever that is found out. */
export const missingRole = (vault: Vault, role: string): ProviderError =>
  new ProviderError('target_missing_role', `${vault.name} has no role ${role} at ${vault.config.mount}/roles.`, {
    next: `Make it (docs/providers.md says how), or correct "role" in the entitlement: bao list ${vault.config.mount}/roles`,
  });

const isMissing = (vault: Vault, role: string, signal: AbortSignal): Promise<boolean> =>
  vault.call({ method: 'GET', path: `${vault.config.mount}/roles/${role}`, signal, doing: 'reading the role', shape: anything }).then(
    () => false,
    (error: unknown) => saidOf(error).status === 404,
  );

/**
 * Draws the user's own end (VALID UNTIL) to the grant's, so that it also holds with Vault dead; writes down what was made;
 * and reads the token back, whose end is the truth. A token that is gone by then was ended while its credential was made:
 * Vault does not end such a credential by itself, so the caller must. Null: the token's end is off.
 */
async function settle(
  vault: Vault,
  spec: LeaseSpec,
  made: Attempt & { databaseLease: string },
  { left, began }: { left: number; began: number },
  signal: AbortSignal,
): Promise<Date | null> {
  const wanted = Math.max(1, Math.ceil((left - (Date.now() - began)) / 1_000));
  const [renewed, , token] = await settled([
    vault
      .call({
        method: 'POST',
        path: 'sys/leases/renew',
        body: { lease_id: made.databaseLease, increment: wanted },
        signal,
        doing: "setting the database user's end",
        shape: renewShape,
      })
      .catch((error: unknown) => {
        throw /lease (not found|expired)|invalid lease/i.test(saidOf(error).message) ? endedMeanwhile(vault) : error;
      }),
    writeAttempt(vault, spec, made, signal),
    readToken(vault, spec, made.accessor, signal),
  ]);
  if (!token) throw endedMeanwhile(vault);
  if (!token.expiresAt)
    throw new ProviderError('target_forbids', `${vault.name}: Vault gave the token of a lease no end.`, { next: 'Look at the token role there.' });
  const early = spec.endsAt.getTime() - token.expiresAt.getTime();
  if (early < 0 || early > tooEarlyMs) {
    vault.learnSkew(token.expiresAt.getTime() - left - began);
    return null;
  }
  // Shorter than asked: the role's max_ttl ends it earlier, at a time that only the lease itself tells.
  const lease = renewed.lease_duration < wanted ? await readDatabaseLease(vault, made.databaseLease, signal) : null;
  return lease?.expiresAt && lease.expiresAt < token.expiresAt ? lease.expiresAt : token.expiresAt;
}

const endedMeanwhile = (vault: Vault): ProviderError =>
  new ProviderError('target_failed', `${vault.name}: the lease was ended while its credential was being made.`);

/** Takes back what an attempt made, at once where there is time; otherwise in the background, and the lease's own revocation does it for certain. */
async function undo(vault: Vault, probe: Probe | null, spec: LeaseSpec, known: Attempt, signal: AbortSignal): Promise<boolean> {
  const ending = endAttempt(vault, probe, spec, known, AbortSignal.timeout(5_000)).then(
    () => true,
    () => false,
  );
  if (signal.aborted) return false;
  return Promise.race([ending, new Promise<boolean>((late) => signal.addEventListener('abort', () => late(false), { once: true }))]);
}

/** Like `Promise.all`, but waits for every one before it fails: nothing of a failed attempt may still be under way when it is undone. */
async function settled<T extends readonly unknown[]>(work: { [K in keyof T]: Promise<T[K]> }): Promise<T> {
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}

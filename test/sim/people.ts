/** People and others who act at random: they ask, decide under any of their accounts, claim, log in at targets, give back, end, close incidents, withdraw, review. */
import { claimLease } from '../../src/commands/claim-lease.ts';
import { closeReview } from '../../src/commands/close-review.ts';
import { decideRequest, shownOf } from '../../src/commands/decide-request.ts';
import { returnGrant, revokeGrant, revokeIncident } from '../../src/commands/end-grant.ts';
import { submitRequest } from '../../src/commands/submit-request.ts';
import { withdrawRequest } from '../../src/commands/withdraw-request.ts';
import { isRefusal } from '../../src/domain/errors.ts';
import { seenHash } from '../../src/domain/seen.ts';
import { type Account, type House, isForeseen, personId, type Server } from './house.ts';
import type { GrantRow, PersonRow, RequestRow } from './watch-commit.ts';

/** What a holder was given, once. */
export interface Credential {
  readonly lease: string;
  readonly target: string;
  readonly name: string;
  readonly secret: string;
}

export interface Crowd {
  readonly credentials: Credential[];
  /** Somebody does something. */
  act(): void;
  /** Somebody who has a credential tries it. */
  tryOne(): void;
}

type Deed = (server: Server) => Promise<unknown> | undefined;

type Answered = (credential: Credential, holder: string) => void;

/** Who and what somebody at random turns to. */
function choicesOf({ world: { random }, store, accounts }: House) {
  const anyone = (): Account => random.pick(accounts);
  const some = <T>(list: readonly T[]): T | undefined => (list.length > 0 ? random.pick(list) : undefined);
  /** What is still under way, mostly. */
  const grant = (): GrantRow | undefined => {
    const all = store.rows<GrantRow>('access_grant');
    return some(random.chance(0.85) ? all.filter((one) => one.state === 'active') : all);
  };
  const request = (): RequestRow | undefined => {
    const all = store.rows<RequestRow>('request');
    return some(random.chance(0.9) ? all.filter((one) => one.state === 'pending') : all);
  };
  const holderOf = (id: string): Account => some(accounts.filter((account) => account.personId === id && account.via !== 'slack')) ?? anyone();
  return { anyone, some, grant, request, holderOf };
}

type WeightedDeed = readonly [number, string, Deed];

/** Asking and deciding. */
function decisionsOf(house: House): readonly WeightedDeed[] {
  const { world, store, accounts } = house;
  const { random } = world;
  const { anyone, some, request, holderOf } = choicesOf(house);
  const ask: Deed = ({ ctx }) => {
    const names = [...house.policy.entitlements.keys()];
    const account = random.chance(0.8) ? holderOf(personId(random.pick([0, 1, 2, 3, 6]))) : anyone();
    const breakGlass = random.chance(0.25);
    const wished = random.chance(0.75) ? [random.pick(breakGlass ? ['one-lead', 'one-guard'] : names)] : [random.pick(names), random.pick(names)];
    return submitRequest(ctx, house.actor(account), {
      entitlements: [...new Set(wished)],
      durationSeconds: random.between(10, breakGlass ? 30 : 80),
      reason: 'why',
      incident: random.chance(0.4) ? random.pick(['INC-1', 'INC-2']) : null,
      startAt: random.chance(0.15) ? new Date(world.now + random.between(0, 30_000)) : null,
      breakGlass,
    });
  };
  const decide: Deed = ({ ctx }) => {
    const row = request();
    const requester = row && store.row<PersonRow>('person', row.person_id);
    if (!row || !requester) return undefined;
    const current = row.entitlements.map((name) => house.policy.entitlements.get(name) ?? null);
    const shown = shownOf(row, { id: requester.id, name: requester.name }, current);
    const seen = seenHash(random.chance(0.05) ? { ...shown, durationSeconds: 1 } : shown);
    // The one who asked tries too, under one account or another.
    const own = random.chance(0.15) ? some(accounts.filter((account) => account.human === house.humanOf(row.person_id))) : undefined;
    const account = own ?? (random.chance(0.8) ? some(accounts.filter((one) => mayDecide(one))) : undefined) ?? anyone();
    return decideRequest(ctx, house.actor(account), row.id, { decision: random.chance(0.9) ? 'approve' : 'deny', reason: 'because', seen });
  };
  const mayDecide = (account: Account): boolean =>
    account.via !== 'device' && (store.row<PersonRow>('person', account.personId)?.groups.some((group) => group === 'leads' || group === 'guards') ?? false);
  const withdraw: Deed = ({ ctx }) => {
    const row = request();
    return row && withdrawRequest(ctx, house.actor(holderOf(row.person_id)), row.id);
  };
  const review: Deed = ({ ctx }) => {
    const row = some(store.rows('review'));
    return row && closeReview(ctx, house.actor(anyone()), row.id, { verdict: 'justified', notes: '' });
  };
  return [
    [20, 'asks', ask],
    [30, 'decides', decide],
    [4, 'withdraws', withdraw],
    [4, 'reviews', review],
  ];
}

/** Claiming, and ending what was granted. */
function usesOf(house: House, credentials: Credential[], onAnswer: Answered): readonly WeightedDeed[] {
  const { store } = house;
  const { random } = house.world;
  const { anyone, grant, holderOf } = choicesOf(house);
  const claim: Deed = ({ ctx }) => {
    const row = grant();
    const entitlements = row && store.row<RequestRow>('request', row.request_id)?.entitlements;
    if (!row || !entitlements) return undefined;
    const account = random.chance(0.95) ? holderOf(row.person_id) : anyone();
    return claimLease(ctx, house.actor(account), row.id, random.pick(entitlements)).then((claimed) => {
      const credential = { lease: claimed.leaseId, target: claimed.target, name: claimed.issued.handle, secret: claimed.issued.secret['secret'] ?? '' };
      credentials.push(credential);
      onAnswer(credential, account.personId);
    });
  };
  const giveBack: Deed = ({ ctx }) => {
    const row = grant();
    return row && returnGrant(ctx, house.actor(holderOf(row.person_id)), row.id);
  };
  const revoke: Deed = ({ ctx }) => {
    const row = grant();
    return row && revokeGrant(ctx, house.actor(anyone()), row.id, 'enough');
  };
  const closeIncident: Deed = ({ ctx }) => revokeIncident(ctx, house.actor(anyone()), random.pick(['INC-1', 'INC-2']), 'it is over');
  return [
    [30, 'claims', claim],
    [2, 'gives back', giveBack],
    [4, 'ends', revoke],
    [2, 'closes an incident', closeIncident],
  ];
}

/** The groups of a person change at the identity provider. */
function regroup({ world, store }: House): void {
  const { random } = world;
  const person = random.pick(store.rows<PersonRow>('person'));
  const entry = store.tables.person.get(person.id);
  if (!entry) return;
  const tx = store.begin(undefined);
  if (store.blocked(entry, tx, 'update')) {
    store.rollback(tx);
    return;
  }
  entry.owner = tx;
  tx.held.add(entry);
  const has = person.groups.length > 1 ? person.groups.slice(1) : random.chance(0.5) ? [] : ['oncall', 'leads'];
  store.write(tx, entry, { ...person, groups: has });
  world.say(() => `${person.id.slice(-2)} now belongs to ${has.join(', ') || 'nothing'}`);
  const was = store.world.chatter;
  store.world.chatter = 0;
  store.commit(tx).catch(() => undefined);
  store.world.chatter = was;
}

/** `onAnswer` hears of a credential when its holder does; `onLogin` of a login that worked. */
export function crowdOf(house: House, onAnswer: Answered, onLogin: (credential: Credential) => void): Crowd {
  const { world } = house;
  const { random } = world;
  const credentials: Credential[] = [];
  const deeds = [...decisionsOf(house), ...usesOf(house, credentials, onAnswer)];
  const byWeight = deeds.flatMap((deed) => Array.from({ length: deed[0] }, () => deed));
  return {
    credentials,
    act() {
      if (random.chance(0.03)) return regroup(house);
      const server = random.pick(house.servers);
      if (server.proc.dead) return;
      const [, what, deed] = random.pick(byWeight);
      const times = random.chance(0.08) ? 2 : 1;
      for (let time = 0; time < times; time++)
        world.after(random.between(0, 3), server.proc, () => {
          world.say(() => `somebody ${what}`);
          deed(server)?.catch((error: unknown) => {
            world.say(() => `  answered: ${(error as { code?: string }).code ?? ''} ${(error as Error).message}`);
            if (!isRefusal(error) && !isForeseen(error)) world.breaks('unforeseen', `somebody ${what}: ${(error as Error).stack}`);
          });
        });
    },
    tryOne() {
      if (credentials.length === 0) return;
      const credential = random.pick(credentials);
      if (house.targets.get(credential.target)?.login(credential.name, credential.secret)) onLogin(credential);
    },
  };
}

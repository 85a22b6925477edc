/** The house of a simulated run: who there is, what may be asked for, and the processes that serve and work, made of the real commands and workers. */
import type { Ctx, PersonActor, Policy } from '../../src/commands/context.ts';
import type { Entitlement } from '../../src/domain/entitlement.ts';
import { embeddedQueue } from '../../src/queue/embedded.ts';
import type { QueueParts } from '../../src/queue/port.ts';
import { startWorkers, type Workers } from '../../src/workers/start-workers.ts';
import { dbOf } from './query.ts';
import { type SharedQueue, sharedQueue } from './queue.ts';
import { Store, StoreError } from './store.ts';
import { type Habit, type Leaks, type ModelTarget, type Sees, targetOf } from './target.ts';
import type { Proc, World } from './world.ts';

/** A person has accounts; through which one they come, they are the same human. */
export interface Account {
  readonly human: string;
  readonly personId: string;
  readonly via: PersonActor['via'];
}

export interface Server {
  readonly proc: Proc;
  readonly ctx: Ctx;
}

export interface House {
  readonly world: World;
  readonly store: Store;
  readonly targets: ReadonlyMap<string, ModelTarget>;
  readonly policy: Policy;
  readonly accounts: readonly Account[];
  readonly queue: SharedQueue;
  readonly servers: Server[];
  readonly humanOf: (personId: string) => string;
  actor(account: Account): PersonActor;
  /** Starts a process in the place of one that is gone. */
  start(place: number): void;
  kill(place: number): void;
  pause(place: number, ms: number): void;
}

const groups = (...names: string[]) => ({ groups: names, subjects: [] });
const base = {
  kind: 'model',
  grant: { role: 'r' },
  grantInWords: 'role r',
  owner: 'the owners',
  opens: 'what it opens',
  eligible: groups('oncall'),
  decideWithinSeconds: 40,
  maxDurationSeconds: 90,
  review: { of: groups('leads'), withinSeconds: 600 },
  breakGlass: null,
  slackDecision: 'allow' as const,
};
const entitlements: readonly Entitlement[] = [
  {
    ...base,
    name: 'one-lead',
    target: 'keeps',
    approval: [{ of: groups('leads'), count: 1 }],
    breakGlass: { eligible: groups('oncall'), maxDurationSeconds: 30 },
  },
  { ...base, name: 'two-leads', target: 'drops', approval: [{ of: groups('leads'), count: 2 }] },
  {
    ...base,
    name: 'lead-and-guard',
    target: 'again',
    approval: [
      { of: groups('leads'), count: 1 },
      { of: groups('guards', 'leads'), count: 1 },
    ],
  },
  {
    ...base,
    name: 'one-guard',
    target: 'unlisted',
    approval: [{ of: groups('guards'), count: 1 }],
    breakGlass: { eligible: groups('oncall'), maxDurationSeconds: 40 },
  },
];

const people: readonly (readonly string[])[] = [
  ['oncall'],
  ['oncall'],
  ['oncall', 'leads'],
  ['oncall', 'leads', 'guards'],
  ['leads'],
  ['guards'],
  ['oncall', 'guards'],
];

export const personId = (index: number): string => `per_${String(index).padStart(32, '0')}`;

export interface HouseOptions {
  readonly sees: Sees;
  readonly leaks: Leaks;
  /** Rules of the database that are taken away. */
  readonly without: readonly string[];
  /** A Slack account is taken for a person of its own. */
  readonly aliasIsAPerson: boolean;
}

/** Writes everybody into the store; returns their accounts and who is behind which person. */
function addPeople(world: World, store: Store, aliasIsAPerson: boolean): { accounts: readonly Account[]; humans: ReadonlyMap<string, string> } {
  const accounts: Account[] = [];
  const humans = new Map<string, string>();
  const setUp = store.begin(undefined);
  const addPerson = (id: string, human: string, of: readonly string[]): void => {
    humans.set(id, human);
    store.insert(setUp, 'person', { id, issuer: 'i', subject: id, name: id, groups: [...of], groups_read_at: new Date(world.now + 86_400_000) });
  };
  for (const [index, of] of people.entries()) {
    const human = `human ${index}`;
    addPerson(personId(index), human, of);
    for (const via of ['web', 'cli', 'device'] as const) accounts.push({ human, personId: personId(index), via });
    const alias = aliasIsAPerson ? personId(index + 100) : personId(index);
    if (aliasIsAPerson) addPerson(alias, human, of);
    accounts.push({ human, personId: alias, via: 'slack' });
  }
  void store.commit(setUp);
  return { accounts, humans };
}

/** Builds the house; nothing runs before `start`. */
export function houseOf(world: World, options: HouseOptions): House {
  const store = new Store(world, options.without);
  const targets = new Map(
    (['keeps', 'drops', 'again', 'unlisted'] satisfies Habit[]).map((habit) => [habit as string, targetOf(world, habit, habit, options.sees, options.leaks)]),
  );
  // New objects in each run: the code remembers descriptions by them.
  const policy: Policy = {
    entitlements: new Map(entitlements.map((entitlement) => [entitlement.name, { ...entitlement }])),
    auditors: groups(),
    admins: groups('admins'),
    maxPendingPerPerson: 5,
    groupsMaxAgeSeconds: 86_400,
  };
  const { accounts, humans } = addPeople(world, store, options.aliasIsAPerson);
  const queue = sharedQueue(world);
  const ownQueues = world.random.chance(0.5);
  const servers: Server[] = [];
  let lives = 0;
  const house: House = {
    world,
    store,
    targets,
    policy,
    accounts,
    queue,
    servers,
    humanOf: (id) => humans.get(id) ?? id,
    actor(account) {
      const row = store.row<{ id: string; subject: string; name: string; groups: string[] }>('person', account.personId);
      if (!row) throw new Error(`nobody is ${account.personId}`);
      const { id, subject, name } = row;
      return { id, subject, name, groups: row.groups, via: account.via, loginId: 'ses', authAt: new Date(world.now - 1_000), acr: null };
    },
    start(place) {
      const proc: Proc = { name: `p${place}.${++lives}`, dead: false, pausedUntil: 0, skewMs: world.random.between(-600_000, 600_000) };
      let workers: Workers | undefined;
      const ctx: Ctx = {
        db: dbOf(store),
        pool: { query: async () => ({ rows: [{ now: new Date(world.now), groupsReadAt: new Date(world.now) }] }) } as unknown as Ctx['pool'],
        targets,
        policy,
        log: logOf(world),
        nudge: (change) => workers?.nudge(change),
        tells: false,
      };
      // So few places at one of them that access is often cut there before anything else is done.
      const lanes = new Map([['keeps', { concurrency: 2 }]]);
      const sealer = { sealOnce: async () => undefined } as unknown as Parameters<typeof startWorkers>[1];
      const makeQueue = ownQueues ? (parts: QueueParts) => embeddedQueue(parts) : queue.of(proc);
      servers[place] = { proc, ctx };
      // In an event of its own, so that all that follows belongs to it.
      world.after(0, proc, () => {
        world.say(() => `${proc.name} starts, its clock ${Math.round(proc.skewMs / 1_000)} s off`);
        workers = startWorkers(ctx, sealer, undefined as unknown as Parameters<typeof startWorkers>[2], makeQueue, lanes);
      });
    },
    kill: (place) => kill(house, place),
    pause: (place, ms) => pause(house, place, ms),
  };
  return house;
}

function kill({ world, store, servers }: House, place: number): void {
  const server = servers[place];
  if (!server || server.proc.dead) return;
  server.proc.dead = true;
  for (const tx of [...store.open]) if (tx.proc === server.proc && tx.state === 'open') store.rollback(tx);
  world.say(() => `${server.proc.name} is killed`);
}

function pause({ world, store, servers }: House, place: number, ms: number): void {
  const server = servers[place];
  if (!server || server.proc.dead || server.proc.pausedUntil > world.now) return;
  const { proc } = server;
  proc.pausedUntil = world.now + ms;
  world.say(() => `${proc.name} is paused for ${Math.round(ms / 1_000)} s`);
  // idle_in_transaction_session_timeout (src/db/pool.ts).
  if (ms > 30_000)
    world.after(30_000, undefined, () => {
      for (const tx of [...store.open]) if (tx.proc === proc && tx.state === 'open' && tx.startedAt < world.now - 29_000) store.rollback(tx);
    });
}

/** The log of a process: kept in the trace; what nobody foresaw breaks the run. */
function logOf(world: World): Ctx['log'] {
  const line = (level: string) => (about: { readonly code?: string; readonly why?: string; readonly stack?: string }) => {
    world.say(() => `log ${level} ${about.code ?? ''} ${about.why ?? ''}`);
    if (about.stack || (about.why && unforeseen.test(about.why))) world.breaks('unforeseen', `${about.code}: ${about.stack ?? about.why}`);
  };
  return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') } as unknown as Ctx['log'];
}

const unforeseen = /is not a function|is not iterable|Cannot read|undefined|modelled store|outside of a transaction|store: (the rule|duplicate|no row)/;

/** Whether this is a failure that the store or a target is meant to have. */
export const isForeseen = (error: unknown): boolean => error instanceof StoreError && !unforeseen.test(error.message);

/** For each failpoint the story that reaches it: in which kind of process, at which target, what comes before, and the act that leads there. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readSecret } from '../../src/config/secrets.ts';
import type { Failpoint } from '../../src/domain/failpoint.ts';
import { postgres } from '../../src/providers/postgres.ts';
import { newLease } from '../support/provider-contract.ts';
import type { Arm, Member, Role } from './processes.ts';
import type { Scene } from './scene.ts';
import type { Kind } from './targets.ts';

/** The processes that are at work: one that answers people, and whichever is to come to the step. */
export interface Stage {
  web: Member;
  victim: Member;
}

/** What leads to the step, once the process is armed; at which of its visits; what must hold at the end beyond the checks. */
export interface Act {
  readonly run: () => Promise<unknown>;
  readonly nth?: number;
  readonly after?: () => Promise<void>;
}

export interface Story {
  /** Where the step is come to. */
  readonly at: Role;
  readonly kind: Kind;
  readonly redis?: true;
  readonly tells?: true;
  /** The process is started when all else is ready, and armed before it does anything. */
  readonly late?: true;
  /** Armed as well: what leads there is itself a failure. */
  readonly also?: readonly Arm[];
  /** What may stay at the target until it ends by itself with the grant, because nothing anywhere could name it, and nobody can use it. */
  readonly mayStay?: RegExp;
  readonly prepare: (scene: Scene, stage: Stage) => Promise<Act>;
}

/** A grant that outlives the fault; one whose end falls into the time that a claiming process sleeps. */
const durationFor = ({ mode }: Scene): string => (mode === 'pause' ? '25s' : '10m');

const claims = (kind: Kind): Story => ({
  at: 'web',
  kind,
  async prepare(scene) {
    const grant = await scene.granted(durationFor(scene));
    return { run: () => scene.claim(grant) };
  },
});
const claimsAgain: Story = {
  at: 'web',
  kind: 'aws',
  async prepare(scene) {
    const grant = await scene.granted(durationFor(scene));
    await scene.claim(grant);
    return { run: () => scene.claim(grant) };
  },
};
const givesBack = (kind: Kind, more: Pick<Story, 'redis'> = {}): Story => ({
  ...more,
  at: 'worker',
  kind,
  async prepare(scene) {
    const grant = await scene.granted('10m');
    await scene.claim(grant);
    return { run: () => scene.giveBack(grant) };
  },
});
const expires = (seconds: number): Story => ({
  at: 'worker',
  kind: 'postgres',
  async prepare(scene) {
    await scene.claim(await scene.granted(`${seconds}s`));
    return { run: async () => undefined };
  },
});
const seals: Story = { at: 'worker', kind: 'postgres', prepare: async (scene) => ({ run: () => scene.granted('10m') }) };
const tells: Story = { at: 'worker', kind: 'postgres', tells: true, prepare: async (scene) => ({ run: () => scene.ask('10m') }) };

/** One of the commits of a person's way, by the seed: the approval, the claim's first and second, the return. */
const commits: Story = {
  at: 'web',
  kind: 'postgres',
  async prepare(scene) {
    const which = Math.floor(scene.random() * 4);
    if (which === 0) {
      const request = await scene.ask(durationFor(scene));
      return { run: () => scene.approve(request) };
    }
    const grant = await scene.granted(durationFor(scene));
    if (which < 3) return { run: () => scene.claim(grant), nth: which };
    await scene.claim(grant);
    return { run: () => scene.giveBack(grant) };
  },
};

/** A server that died in the middle of a claim; the worker is started when the claim can no longer be under way. */
const unfinished: Story = {
  at: 'worker',
  kind: 'postgres',
  late: true,
  async prepare(scene, stage) {
    const grant = await scene.granted('10m');
    await stage.web.arm({ name: 'claim.made', mode: 'kill' });
    await scene.claim(grant).catch(() => undefined);
    await stage.web.gone;
    stage.web = scene.start('web');
    await stage.web.ready;
    await sleep(11_000);
    return { run: async () => undefined };
  },
};

/** A login with our marker that no row tells of, as after the restore of an old backup. */
const unexplained: Story = {
  at: 'worker',
  kind: 'postgres',
  late: true,
  async prepare(scene) {
    const { target } = scene.house;
    const config = postgres.targetSchema.parse(target.config);
    const door = postgres.connect('orders-db', config, { readSecret });
    const spec = newLease(target.grant, 600);
    const issued = await door.issue(spec, AbortSignal.timeout(10_000));
    await door.close();
    scene.canaries.add(issued.secret['password'] ?? '');
    return {
      run: async () => undefined,
      async after() {
        const events = await scene.query(`SELECT FROM audit_event WHERE type IN ('lease.unexplained', 'lease.adopted') AND lease_id = $1`, spec.leaseId);
        if (events.length === 0) throw new Error('the end of an object that no lease explained has no witness');
      },
    };
  },
};

/** Every failpoint; the compiler asks for one that is missing. */
export const stories: Readonly<Record<Failpoint, Story>> = {
  'commit.before': commits,
  'commit.done': commits,
  'claim.intended': claims('postgres'),
  'claim.made': claims('postgres'),
  'claim.revealed': claims('postgres'),
  'claim.undoing': { ...claims('postgres'), also: [{ name: 'claim.made', mode: 'throw' }] },
  'again.intended': claimsAgain,
  'again.made': claimsAgain,
  'again.shown': claimsAgain,
  'relay.enqueued': givesBack('postgres'),
  'relay.deleted': givesBack('postgres'),
  'queue.put': givesBack('postgres', { redis: true }),
  'queue.taken': givesBack('postgres', { redis: true }),
  'queue.ran': givesBack('postgres', { redis: true }),
  'expire.queued': expires(8),
  'expire.ended': expires(5),
  'revoke.asked': givesBack('postgres'),
  'revoke.gone': givesBack('postgres'),
  'revoke.recorded': givesBack('postgres'),
  'reconcile.unfinished': unfinished,
  'reconcile.revoked': unexplained,
  'seal.signed': seals,
  'seal.committed': seals,
  'seal.appended': seals,
  'seal.published': seals,
  'notify.taken': tells,
  'notify.sent': tells,
  'postgres.made': claims('postgres'),
  'postgres.disabled': givesBack('postgres'),
  'postgres.terminated': givesBack('postgres'),
  'postgres.cleaned': givesBack('postgres'),
  'postgres.dropped': givesBack('postgres'),
  // The token's text and its accessor died with the process; Vault lists accessors to nobody but its root.
  'vault.token-made': { ...claims('vault'), mayStay: /^token of / },
  'vault.indexed': claims('vault'),
  'vault.user-made': claims('vault'),
  'vault.settled': claims('vault'),
  'vault.user-dropped': givesBack('vault'),
  'vault.token-ended': givesBack('vault'),
  'vault.read-back': givesBack('vault'),
  'vault.forgotten': givesBack('vault'),
  'aws.assumed': claims('aws'),
  'aws.denied': givesBack('aws'),
  'kubernetes.account-made': claims('kubernetes'),
  'kubernetes.secret-made': claims('kubernetes'),
  'kubernetes.token-made': claims('kubernetes'),
  'kubernetes.bound': claims('kubernetes'),
  'kubernetes.unbound': givesBack('kubernetes'),
  'kubernetes.secret-removed': givesBack('kubernetes'),
  'kubernetes.removed': givesBack('kubernetes'),
};

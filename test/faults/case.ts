/** One case: a story up to the failpoint, the fault there, all processes back, and whatever must hold. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Failpoint } from '../../src/domain/failpoint.ts';
import { agreesNow, busy, holdsAtTheEnd, residue } from './checks.ts';
import type { Arm, Member, Mode } from './processes.ts';
import { openScene, type Scene, until } from './scene.ts';
import { type Act, type Stage, type Story, stories } from './stories.ts';
import type { Servers } from './targets.ts';

export interface Case {
  readonly name: Failpoint;
  readonly mode: Mode;
  readonly random: () => number;
}

/** The step was not come to: the story or the table is wrong. */
export class NotReached extends Error {}

const pauseMs = 60_000;
/** With a process asleep or hung, what is over must be closed by then, in seconds: a transaction that it left open is ended by the server after 30. */
const overSeconds = 40;
/** So long a process may hang: idle transactions end after 30 s, a revocation after 21, a claim after 9. */
const hangMs = 45_000;
/** An upper bound on a busy machine; it is a matter of one to eight seconds. */
const reachMs = 60_000;
/** Reconciliation comes every 30 s, and a claim that died is ended 10 s after it began. */
const quietMs = 90_000;

const mustHold = (when: string, wrong: readonly string[]): void => {
  if (wrong.length > 0) throw new Error(`${when}: ${[...new Set(wrong)].slice(0, 6).join('; ')}`);
};

/** Runs one case. Resolves with remarks; throws what is wrong, `NotReached` when the step was not come to. */
export async function runCase(servers: Servers, { name, mode, random }: Case): Promise<string[]> {
  const story = stories[name];
  const scene = await openScene(servers, { kind: story.kind, redis: story.redis ?? false, tells: story.tells ?? false, mode, random });
  let failure: unknown;
  try {
    return await inScene(scene, story, name);
  } catch (error) {
    failure = error;
    throw withLog(error as Error, scene);
  } finally {
    // What a failed case leaves at its target is not another failure.
    await scene.close().catch((error: Error) => {
      if (failure === undefined) throw error;
    });
  }
}

function withLog(error: Error, { members }: Scene): Error {
  const lines = members.flatMap(({ role, pid, output }) =>
    output()
      .split('\n')
      .filter((line) => /"level":"(warn|error|fatal)"|^hit |Error/.test(line))
      .slice(-8)
      .map((line) => `    ${role} ${pid}: ${line.slice(0, 400)}`),
  );
  if (lines.length > 0) error.message += `\n${lines.join('\n')}`;
  return error;
}

async function inScene(scene: Scene, story: Story, name: Failpoint): Promise<string[]> {
  const stage = await open(scene, story);
  const act = await story.prepare(scene, stage);
  const arms: Arm[] = [{ name, mode: scene.mode, ...(act.nth === undefined ? {} : { nth: act.nth }) }, ...(story.also ?? [])];
  if (story.at === 'web') stage.victim = stage.web;
  if (story.late) stage.victim = scene.start('worker', arms);
  else for (const arm of arms) await stage.victim.arm(arm);
  const acting = act.run().catch((error: unknown) => error);
  await reached(stage.victim, name);
  await befall[scene.mode](scene, stage, story);
  await acting;
  await finish(scene, story);
  return atTheEnd(scene, act, story);
}

/** Starts the processes, and logs everybody in. The one that is to come to the step is the only one that can, until it has. */
async function open(scene: Scene, story: Story): Promise<Stage> {
  const web = scene.start('web');
  const worker = story.late ? undefined : scene.start('worker');
  await Promise.all([web.ready, worker?.ready]);
  for (const person of ['oncall', 'lead'] as const) await scene.api(person);
  return { web, victim: worker ?? web };
}

async function reached(victim: Member, name: Failpoint): Promise<void> {
  const timer = new AbortController();
  const late = sleep(reachMs, 'late' as const, { signal: timer.signal }).catch(() => 'late' as const);
  const hit = victim.hit(name).then(() => 'hit' as const);
  const first = await Promise.race([hit, late, victim.gone.then(() => Promise.race([hit, 'gone' as const]))]);
  timer.abort();
  if (first !== 'hit') throw new NotReached(`${name} was not reached (${first === 'gone' ? 'the process ended before' : `within ${reachMs / 1_000} s`})`);
}

const replace = async (scene: Scene, stage: Stage): Promise<void> => {
  const { role } = stage.victim;
  stage.victim = scene.start(role);
  await stage.victim.ready;
};

type Befall = (scene: Scene, stage: Stage, story: Story) => Promise<void>;

/** Another worker takes over while the first cannot work. Where it is the server that cannot, a worker has been there all the time. */
const helper = async (scene: Scene, story: Story): Promise<void> => {
  if (story.at === 'worker') await scene.start('worker').ready;
};

const befall: Readonly<Record<Mode, Befall>> = {
  async kill(scene, stage) {
    await stage.victim.gone;
    mustHold('after the kill', await agreesNow(scene));
    await replace(scene, stage);
  },
  async pause(scene, stage, story) {
    const began = performance.now();
    await helper(scene, story);
    mustHold('soon after the stop', await agreesNow(scene));
    await sleep(pauseMs - (performance.now() - began));
    mustHold('after 60 s of sleep', await agreesNow(scene, overSeconds));
    stage.victim.wake();
    mustHold('soon after waking', await agreesNow(scene, overSeconds));
  },
  async throw(scene, stage) {
    mustHold('after the throw', await agreesNow(scene));
    if (!stage.victim.isAlive()) throw new Error('the process ended by what was thrown');
  },
  async hang(scene, stage, story) {
    const began = performance.now();
    await helper(scene, story);
    while (performance.now() - began < hangMs) {
      mustHold('while it hangs', await agreesNow(scene, overSeconds));
      if (story.at === 'worker' && (await busy(scene)).length === 0) break;
      await sleep(1_000);
    }
    await stage.victim.kill();
    await replace(scene, stage);
  },
};

/** What the person does then: claims again where a claim was cut short, and gives back what is still theirs. */
async function finish(scene: Scene, story: Story): Promise<void> {
  const me = await (await scene.api('oncall')).get('/me');
  if (me.status !== 200) throw new Error(`the server answers ${me.status} when all is well again`);
  const grants = await scene.query<{ id: string }>(`SELECT id FROM access_grant WHERE state = 'active' AND ends_at > now() + interval '5 seconds' ORDER BY id`);
  for (const { id } of grants) {
    if (story.at === 'web') {
      let last = '';
      const claim = () =>
        scene.claim(id).catch((error: Error): false => {
          last = error.message;
          return false;
        });
      const again = await until('the holder can claim again', claim, 20_000).catch((error: Error) => {
        throw new Error(`${error.message}: ${last}`);
      });
      if (!(await scene.target.letsIn(again))) throw new Error('what was claimed again lets nobody in');
    }
    await scene.giveBack(id);
  }
}

async function atTheEnd(scene: Scene, { after }: Act, { mayStay }: Story): Promise<string[]> {
  const remarks: string[] = [];
  const mustGo = async (): Promise<string[]> => (await residue(scene)).filter((one) => !mayStay?.test(one));
  await until('all is quiet', async () => (await busy(scene)).length === 0, quietMs).catch(async () =>
    mustHold(`not quiet after ${quietMs / 1_000} s`, [...(await busy(scene)), 'it became quiet a moment later']),
  );
  const left = await mustGo();
  if (left.length > 0) {
    // What no row explains any more is found by the next comparison.
    const began = performance.now();
    await until('the target is empty', async () => (await mustGo()).length === 0, 45_000).catch(async () =>
      mustHold('left at the target for good', await mustGo()),
    );
    const seconds = (performance.now() - began) / 1_000;
    if (seconds >= 1) remarks.push(`${left[0]} was still there ${seconds.toFixed(0)} s after every row said that it is gone`);
    await until('all is quiet again', async () => (await busy(scene)).length === 0, 15_000);
  }
  await after?.();
  for (const member of scene.members) {
    if (!member.isAlive()) continue;
    const code = await member.stop();
    if (code !== 0) throw new Error(`a ${member.role} ended with ${code} when it was told to stop`);
  }
  mustHold('at the end', await holdsAtTheEnd(scene));
  return remarks;
}

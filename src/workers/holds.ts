/**
 * The duties that only one process does at a time: this process asks for them once a second, and does them while it holds them. A holder
 * that dies, stops or is cut off is followed within five seconds; one that leaves in good order, or whose run fails, at once.
 *
 * A process believes in its hold for less time than PostgreSQL gives it, counted from when it asked. It may still sleep in the middle of a step. What it
 * writes by itself is therefore also compared with the hold's epoch, in the transaction that writes (`assertHeld`); what it only sets
 * going is judged anew by the command that it leads to.
 */
import type { Logger } from 'pino';
import type { Db } from '../db/pool.ts';
import { askDuties, type Hold, HoldLost, releaseDuties } from '../db/stores/duties.ts';
import { elsewhere, startDuty } from './duty.ts';

/** How long PostgreSQL gives a duty for; a little less is believed here. */
export const holdLifeMs = 3_000;
const believedMs = holdLifeMs - 500;
const askEveryMs = 1_000;
/** After a run that failed, others have so long to take the duty. */
const standBackMs = 2_000;

export interface HoldsParts {
  readonly db: Db;
  readonly log: Logger;
  /** The id of this process. */
  readonly holder: string;
  readonly names: readonly string[];
  /** A duty was free and is this process' from now on. */
  readonly taken: (name: string) => void;
}

export interface Holds {
  /** The hold under which this process may act now. */
  held(name: string): Hold | undefined;
  /** Does `work` if the duty is held here, and says `elsewhere` if it is not, or was lost on the way. A failure lets go of it. */
  under(name: string, work: (hold: Hold) => Promise<void>): Promise<typeof elsewhere | undefined>;
  /** Milliseconds since a run of it ended well in any process, as far as this one knows; undefined when it does not. */
  doneMsAgo(name: string): number | undefined;
  /** Lets go of these and asks for them no more. */
  leave(names: readonly string[]): void;
  /** Lets go of all of them; waits two seconds at most. */
  stop(): Promise<void>;
}

interface Belief {
  readonly hold: Hold;
  /** By the steady clock, and by the wall clock: the first may stand still while a machine sleeps. */
  readonly untilSteady: number;
  readonly untilWall: number;
}

/** Begins to ask. */
export function askForDuties({ db, log, holder, names, taken }: HoldsParts): Holds {
  const beliefs = new Map<string, Belief>();
  const known = new Map<string, { readonly at: number; readonly ms: number }>();
  const unwanted = new Set<string>();
  const standBack = new Map<string, number>();
  const letGo = new Set<string>();
  const done = new Set<string>();

  const held = (name: string): Hold | undefined => {
    const belief = beliefs.get(name);
    return belief && performance.now() < belief.untilSteady && Date.now() < belief.untilWall ? belief.hold : undefined;
  };
  const forget = (name: string, backMs: number): void => {
    beliefs.delete(name);
    standBack.set(name, performance.now() + backMs);
    letGo.add(name);
  };
  const ask = async (): Promise<void> => {
    // In the same round as the question: a release that comes late must not end a hold that was taken after it.
    if (letGo.size > 0) {
      const names = [...letGo];
      await releaseDuties(db, holder, names);
      for (const name of names) letGo.delete(name);
    }
    const wanted = names.filter((name) => !unwanted.has(name) && (standBack.get(name) ?? 0) <= performance.now());
    const said = [...done];
    const [steady, wall] = [performance.now(), Date.now()];
    const answers = await askDuties(db, { holder, wanted, done: said, lifeMs: holdLifeMs });
    for (const name of said) done.delete(name);
    for (const { name, epoch, doneMsAgo } of answers) {
      if (doneMsAgo !== null) known.set(name, { at: steady, ms: doneMsAgo });
      // One that was not extended is believed in for as long as it was; one that was given up meanwhile is let go of in the next round.
      if (epoch === null || unwanted.has(name) || letGo.has(name)) continue;
      const before = beliefs.get(name)?.hold;
      const hold = before?.epoch === epoch ? before : { name, holder, epoch };
      beliefs.set(name, { hold, untilSteady: steady + believedMs, untilWall: wall + believedMs });
      if (hold !== before) taken(name);
    }
  };
  const asking = startDuty(log, 'ask-duties', askEveryMs, ask);
  return {
    held,
    async under(name, work) {
      const hold = held(name);
      if (!hold) return elsewhere;
      try {
        await work(hold);
        done.add(name);
        return undefined;
      } catch (error) {
        const lost = error instanceof HoldLost;
        forget(name, lost ? 0 : standBackMs);
        asking.nudge();
        if (lost) return elsewhere;
        throw error;
      }
    },
    doneMsAgo(name) {
      const last = known.get(name);
      return last && last.ms + performance.now() - last.at;
    },
    leave(those) {
      for (const name of those) {
        unwanted.add(name);
        forget(name, 0);
      }
      asking.nudge();
    },
    async stop() {
      await asking.stop();
      beliefs.clear();
      const patience = new Promise<void>((resolve) => setTimeout(resolve, 2_000).unref());
      await Promise.race([releaseDuties(db, holder, names).catch(() => undefined), patience]);
    },
  };
}

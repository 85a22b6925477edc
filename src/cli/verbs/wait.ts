/** Waiting for a decision. The network may come and go meanwhile; only a decision, time or Ctrl-C ends it. */
import { formatDuration } from '../../domain/duration.ts';
import { isRefusal } from '../../domain/errors.ts';
import type { Client } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { CliFault, Unreachable } from '../fault.ts';
import { shortId } from '../resolve.ts';
import { Interrupted, liveLine, pause, put, say, type Terminal } from '../terminal.ts';
import { cut, line, shellWord } from '../text.ts';
import type { WireGrant, WireRequest } from '../wire.ts';
import { about, clock, figure, secondsUntil } from '../words.ts';

/** A decision is to be seen here within 2 s. */
const pollMs = 1_500;

export interface Waiting {
  /** Undefined: until the request lapses. */
  readonly timeoutSeconds: number | undefined;
  /** What to do when it cannot wait. */
  readonly hint: string | undefined;
}

/** Waits until `asked` is decided; says what happens on stderr, and the grant's id on stdout. */
export async function waitFor(terminal: Terminal, client: Client, asked: WireRequest, waiting: Waiting): Promise<number> {
  const began = performance.now();
  const waited = (): number => (performance.now() - began) / 1_000;
  const screen = waitingLine(terminal, asked, waiting, waited);
  const watch = watcher(client, asked);
  try {
    for (;;) {
      const left = waiting.timeoutSeconds === undefined ? Number.POSITIVE_INFINITY : waiting.timeoutSeconds - waited();
      if (left <= 0) {
        screen.say(`Nobody decided within ${formatDuration(waiting.timeoutSeconds ?? 0)}. ${stays(asked)}`);
        return exit.timedOut;
      }
      await pause(terminal, Math.max(50, Math.min(pollMs, left * 1_000)));
      const news = await watch();
      screen.lost(news.lost);
      for (const words of news.said) screen.say(words);
      if (news.request.state !== 'pending') {
        screen.close();
        return decided(terminal, news.request);
      }
    }
  } catch (error) {
    if (!(error instanceof Interrupted) && !terminal.interrupted.aborted) throw error;
    screen.say(`Stopped waiting. ${stays(asked)}`);
    return exit.interrupted;
  } finally {
    screen.close();
  }
}

interface News {
  readonly request: WireRequest;
  readonly said: readonly string[];
  readonly lost: boolean;
}

/** Looks once. A network or a server that is away is news, not an end. */
function watcher(client: Client, asked: WireRequest): () => Promise<News> {
  let request = asked;
  let lost = false;
  return async () => {
    const before = request;
    const wasLost = lost;
    try {
      request = await client.get<WireRequest>(`/requests/${asked.id}`);
      lost = false;
    } catch (error) {
      if (!isPassing(error)) throw error;
      lost = true;
      return { request, lost, said: wasLost ? [] : [`${(error as Error).message} Still waiting; the request itself is not touched by this.`] };
    }
    const decisions = request.decisions
      .slice(before.decisions.length)
      .map((one) => `${line(one.person.name)} ${one.decision === 'approve' ? 'approved' : 'denied'}: “${line(one.reason)}”.`);
    return { request, lost, said: [...(wasLost ? ['The server answers again.'] : []), ...decisions] };
  };
}

/** A fault that may pass while one waits: the network, or a server that restarts. */
const isPassing = (error: unknown): boolean => error instanceof Unreachable || isRefusal(error, 'database_unavailable', 'rate_limited', 'internal');

/** The line that counts up on a terminal; one plain line in a pipe. */
function waitingLine(terminal: Terminal, asked: WireRequest, { hint }: Waiting, waited: () => number) {
  const live = liveLine(terminal);
  const ends = [`lapses ${clock(asked.lapsesAt, new Date())} UTC`, 'Ctrl-C leaves it pending', ...(hint ? [hint] : [])].join(' · ');
  let lost = false;
  const draw = (): void => {
    const time = figure(Math.floor(waited())).replace(/^0(?=\d:)/, '');
    live.show(cut(`${lost ? 'no answer from the server, trying on' : 'waiting'}… ${time}   (${ends})`, (terminal.stderr.columns ?? 80) - 1));
  };
  if (!terminal.stderr.isTTY) say(terminal, `waiting… (${ends})`);
  draw();
  const timer = setInterval(draw, 1_000);
  return {
    lost: (now: boolean): void => {
      lost = now;
    },
    say: (words: string): void => {
      live.clear();
      say(terminal, words);
    },
    close: (): void => {
      clearInterval(timer);
      live.clear();
    },
  };
}

const stays = (request: WireRequest): string =>
  `${shortId(request.id)} stays pending until ${clock(request.lapsesAt, new Date())} UTC; halligan withdraw ${shortId(request.id)} takes it back.`;

function decided(terminal: Terminal, request: WireRequest): number {
  if (request.grant) return opened(terminal, request, request.grant);
  const id = shortId(request.id);
  const next = `Ask again: halligan request ${request.entitlements.map((one) => shellWord(one.name)).join(' ')} --for ${request.duration}`;
  if (request.state === 'denied') throw new CliFault(`${id} was denied; nothing was opened.`, { exitCode: exit.denied, next: `halligan status ${id}` });
  if (request.state === 'withdrawn') throw new CliFault(`${id} was withdrawn.`, { exitCode: exit.timedOut, next });
  if (request.state === 'lapsed') throw new CliFault(`${id} lapsed: nobody decided in time.`, { exitCode: exit.timedOut, next });
  throw new CliFault(`${id} is ${line(request.state)}, and nothing was opened.`);
}

/** Says what is open now, or will be, and puts the grant's id on stdout. */
export function opened(terminal: Terminal, request: WireRequest, grant: WireGrant): number {
  const now = new Date(grant.readAt);
  if (grant.state !== 'active' && grant.state !== 'scheduled')
    throw new CliFault(`${shortId(grant.id)} is over already.`, { exitCode: exit.denied, next: `halligan status ${shortId(grant.id)}` });
  if (grant.state === 'scheduled') say(terminal, `It opens at ${clock(grant.startsAt, now)} UTC, for ${request.durationInWords}.`);
  else
    say(
      terminal,
      `${grant.breakGlass ? 'The glass is broken. ' : ''}Open until ${clock(grant.endsAt, now)} UTC (${about(secondsUntil(grant.endsAt, now))} left).`,
    );
  if (grant.review) say(terminal, `Somebody else reviews this use by ${clock(grant.review.dueAt, now)} UTC.`);
  say(
    terminal,
    grant.state === 'scheduled' ? `next: halligan status ${shortId(request.id)}` : `next: halligan psql ${shellWord(request.entitlements[0]?.name ?? '')}`,
  );
  put(terminal, grant.id);
  return exit.ok;
}

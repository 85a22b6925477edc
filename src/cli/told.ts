/** Who has been told of a request, in a few lines. It is a help and never in the way: what cannot be read within its time is left out. */
import type { Client } from './client.ts';
import { pause, say, type Terminal } from './terminal.ts';
import { line } from './text.ts';
import type { WireTold } from './wire.ts';
import { clock, listed } from './words.ts';

const lookEveryMs = 250;
const asks = ['request.submitted', 'request.glass-broken'];

/** Reads it once; undefined when the server does not answer, or does not know the question. */
const readTold = (client: Client, requestId: string): Promise<WireTold | undefined> =>
  client.get<WireTold>(`/requests/${requestId}/deliveries`, undefined, { deadlineMs: 2_000 }).then(
    (told) => (Array.isArray(told.items) ? told : undefined),
    () => undefined,
  );

/** The lines for a request; none where nobody is told of anything. */
export function toldLines(told: WireTold): string[] {
  const first = told.items.filter((item) => asks.includes(item.about));
  const places = (state: string, tried: boolean): string[] =>
    first
      .filter((item) => item.state === state && (item.why !== null) === tried)
      .map((item) => `${line(item.to)}${tried && item.why ? ` (${line(item.why)})` : ''}`);
  const [sent, onTheWay, notYet, failed] = [places('sent', false), places('waiting', false), places('waiting', true), places('failed', true)];
  return [
    ...(sent.length > 0 ? [`Told: ${listed(sent)}.`] : []),
    ...(onTheWay.length > 0 ? [`Being told: ${listed(onTheWay)}.`] : []),
    ...(notYet.length > 0 ? [`Not told yet, tried again: ${listed(notYet)}.`] : []),
    ...(failed.length > 0 ? [`Could not be told: ${listed(failed)}.`] : []),
    ...(told.nextAt ? [`The next people are told at ${clock(told.nextAt, new Date())} UTC if nobody decides before.`] : []),
  ];
}

/** Says who has been told, after waiting at most `patienceMs` for messages that are on their way. */
export async function sayWhoWasTold(terminal: Terminal, client: Client, requestId: string, patienceMs: number): Promise<void> {
  const until = performance.now() + patienceMs;
  const late = new Promise<undefined>((resolve) => setTimeout(resolve, patienceMs + lookEveryMs, undefined).unref());
  for (;;) {
    const told = await Promise.race([readTold(client, requestId), late]);
    if (!told) return;
    const settled = told.spread && told.items.every((item) => item.state !== 'waiting' || item.why !== null);
    if (!settled && performance.now() + lookEveryMs < until) {
      // Whoever waits for the decision next hears Ctrl-C too, and says what it means.
      if (
        await pause(terminal, lookEveryMs).then(
          () => false,
          () => true,
        )
      )
        return;
      continue;
    }
    for (const words of toldLines(told)) say(terminal, words);
    return;
  }
}

/** The same without waiting, as lines. */
export const whoWasTold = async (client: Client, requestId: string): Promise<string[]> => {
  const told = await readTold(client, requestId);
  return told ? toldLines(told) : [];
};

/** `halligan request`: asks, waits for the decision, and says what to do with it; and `halligan withdraw`. */
import { randomUUID } from 'node:crypto';
import { parseDuration } from '../../domain/duration.ts';
import { isRefusal } from '../../domain/errors.ts';
import { type Client, connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { usage } from '../fault.ts';
import { entitlements as offered, resolveId, shortId } from '../resolve.ts';
import { ask, canAsk, put, say, type Terminal } from '../terminal.ts';
import { line, shellWord } from '../text.ts';
import { sayWhoWasTold } from '../told.ts';
import type { WireRequest } from '../wire.ts';
import { clock, deciders } from '../words.ts';
import { opened, waitFor } from './wait.ts';

export interface RequestOptions {
  readonly for?: string;
  readonly reason?: string;
  readonly incident?: string;
  readonly startAt?: string;
  readonly breakGlass?: boolean;
  /** False for `--no-wait`. */
  readonly wait: boolean;
  readonly timeout?: string;
  readonly idempotencyKey?: string;
}

/** Asks, and unless told otherwise waits. The grant's id (or with `--no-wait` the request's) goes to stdout. */
export async function request(terminal: Terminal, names: readonly string[], options: RequestOptions): Promise<number> {
  const { for: duration } = options;
  if (duration === undefined) throw usage('For how long?', `halligan request ${names.map(shellWord).join(' ')} --for 1h …`);
  const client = await connect(terminal);
  await checkDuration(client, names, duration);
  const timeoutSeconds = options.timeout === undefined ? undefined : parseDuration(options.timeout);
  const startAt = options.startAt === undefined ? undefined : instantOf(options.startAt);
  const reason = options.reason ?? (await askReason(terminal, 'Why do you need it? '));
  const body = {
    entitlements: names,
    duration,
    reason,
    ...(options.incident === undefined ? {} : { incident: options.incident }),
    ...(startAt === undefined ? {} : { startAt }),
    breakGlass: options.breakGlass ?? false,
  };
  // One key for every try of this call, so that an answer lost on the way never asks twice.
  const headers = { 'idempotency-key': options.idempotencyKey ?? randomUUID() };
  const asked = await client.post<WireRequest>('/requests', body, { headers, repeatable: true, deadlineMs: 15_000 });
  if (asked.grant) {
    // Nobody waits for messages before they may work; a look is enough.
    await sayWhoWasTold(terminal, client, asked.id, 0);
    return opened(terminal, asked, asked.grant);
  }
  say(terminal, `${shortId(asked.id)} asked. ${deciders(asked)}.`);
  await sayWhoWasTold(terminal, client, asked.id, 1_500);
  if (!options.wait) {
    say(terminal, `It lapses at ${clock(asked.lapsesAt, new Date())} UTC. next: halligan status ${shortId(asked.id)}`);
    put(terminal, asked.id);
    return exit.pending;
  }
  return waitFor(terminal, client, asked, { timeoutSeconds, hint: await emergency(client, names, options) });
}

/** A duration that cannot be right is refused here, with the most that may be asked for. */
async function checkDuration(client: Client, names: readonly string[], text: string): Promise<void> {
  try {
    parseDuration(text);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const known = await offered(client).catch(() => []);
    const limits = names.flatMap((name) => known.filter((one) => one.name === name).map((one) => `The most for ${line(name)} is ${one.maxDuration}.`));
    throw usage([error.message, ...limits].join(' '));
  }
}

function instantOf(text: string): string {
  const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;
  if (!form.test(text) || Number.isNaN(Date.parse(text))) throw usage(`${JSON.stringify(text)} is not a time: one looks like 2026-01-31T03:00:00Z.`);
  return new Date(text).toISOString();
}

/** Asks for a reason where somebody is there to give one. */
export async function askReason(terminal: Terminal, question: string): Promise<string> {
  if (!canAsk(terminal)) throw usage('A reason is needed.', 'Add --reason "…".');
  const reason = await ask(terminal, question);
  if (reason === '') throw usage('A reason is needed.', 'Add --reason "…".');
  return reason;
}

async function emergency(client: Client, names: readonly string[], options: RequestOptions): Promise<string | undefined> {
  const known = await offered(client).catch(() => []);
  const may = names.every((name) => known.some((one) => one.name === name && one.mayBreakGlass));
  return may && !options.breakGlass ? `in an emergency: halligan request ${names.map(shellWord).join(' ')} --break-glass …` : undefined;
}

export async function withdraw(terminal: Terminal, given: string): Promise<number> {
  const client = await connect(terminal);
  const id = await resolveId(client, 'req', given);
  await client.post(`/requests/${id}/withdraw`, {});
  say(terminal, `${shortId(id)} is withdrawn; nothing will be opened.`);
  put(terminal, id);
  return exit.ok;
}

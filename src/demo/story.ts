/** The main job, told step by step on real parts. Each step proves what it says, or the story stops there. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifyExport } from '../audit/verify.ts';
import { cliTokenFor } from './browserless.ts';
import type { House } from './house.ts';
import {
  type Api,
  apiOf,
  type Credential,
  claim,
  deadlineMs,
  endOfAccess,
  expect,
  expectDenied,
  openSession,
  quietly,
  type Step,
  sleep,
  type Tell,
} from './story-parts.ts';
import { vaultRound } from './vault-round.ts';

/** Tells the whole story. `tell` is given each step's work; a step that throws ends the story. */
export async function tellStory(house: House, readyMs: number, onStep: (step: Step) => void): Promise<void> {
  const tell: Tell = async (step, work) => {
    const began = performance.now();
    const took = () => Math.round(performance.now() - began);
    try {
      const result = await work();
      const { says, measured } = typeof result === 'string' ? { says: result, measured: undefined } : result;
      onStep({ step, ok: true, ms: step === 'ready' ? readyMs : took(), says, ...(measured ? { measured } : {}) });
    } catch (error) {
      onStep({ step, ok: false, ms: took(), says: (error as Error).message });
      throw error;
    }
  };
  await tell('ready', async () => {
    const health = await fetch(`${house.url}/readyz`, { signal: AbortSignal.timeout(deadlineMs) });
    expect(health.ok, `not ready: ${await health.text()}`);
    return `PostgreSQL, the identity provider, the orders database and Halligan are up at ${house.url}`;
  });
  const people = {} as Record<'oncall' | 'lead' | 'auditor', Api>;
  await tell('login', async () => {
    for (const name of ['oncall', 'lead', 'auditor'] as const) people[name] = apiOf(house.url, (await cliTokenFor(house.url, name, 'the demo')).token);
    const me = await people.oncall('GET', '/me');
    expect(me.body['subject'] === 'oncall', 'the login is not who it should be');
    return 'oncall, lead and auditor logged in through OIDC (code flow, PKCE S256) and got tokens for their terminals';
  });
  const approved = await approvedRound(house, people, tell);
  const glass = await glassRound(house, people, tell);
  if (house.bao) await vaultRound(house, house.bao, people, tell);
  if (house.slack) await (await import('./slack-demo.ts')).slackRound(house.slack, { approved, glass }, tell);
  await auditRound(house, people, tell);
}

/** Gives the request's id. */
async function approvedRound(house: House, people: Record<'oncall' | 'lead', Api>, tell: Tell): Promise<string> {
  const { oncall, lead } = people;
  let request = {} as { id: string; seen: string };
  let grant = {} as { id: string; endsAt: string };
  let credential = {} as Credential;
  const began = performance.now();
  await tell('requested', async () => {
    const asked = await oncall('POST', '/requests', {
      entitlements: ['orders-readonly'],
      duration: '20s',
      reason: 'checkout errors since 02:50, are order rows written twice?',
      incident: 'INC-4312',
    });
    expect(asked.status === 201 && asked.body['state'] === 'pending', `asking was refused: ${asked.text}`);
    request = asked.body as unknown as typeof request;
    const [entitlement] = asked.body['entitlements'] as { described: { summary: string } | null }[];
    return `oncall asks for orders-readonly for 20 seconds: ${entitlement?.described?.summary ?? 'what it opens could not be read'}`;
  });
  await tell('self-approval-refused', async () => {
    const tried = await oncall('POST', `/requests/${request.id}/decisions`, { decision: 'approve', reason: 'it is me', seen: request.seen });
    expect(tried.status === 403 && tried.body['code'] === 'self_decision', `self-approval was not refused as it should be: ${tried.text}`);
    return `oncall tries to approve it: ${String(tried.body['detail'])}`;
  });
  await tell('approved', async () => {
    if (house.slack) {
      await (await import('./slack-demo.ts')).approveInSlack(house.slack, request.id, 'go ahead, read only');
      grant = (await oncall('GET', `/requests/${request.id}`)).body['grant'] as typeof grant;
      return `lead presses Approve in Slack, reads exactly what would be granted, gives a reason; open until ${grant.endsAt.slice(11, 19)} UTC`;
    }
    const seen = (await lead('GET', `/requests/${request.id}`)).body['seen'];
    const decided = await lead('POST', `/requests/${request.id}/decisions`, { decision: 'approve', reason: 'go ahead, read only', seen });
    expect(decided.status === 200 && decided.body['state'] === 'approved', `the approval was refused: ${decided.text}`);
    grant = decided.body['grant'] as typeof grant;
    return `lead approves exactly what was shown; open until ${grant.endsAt.slice(11, 19)} UTC`;
  });
  await tell('claimed', async () => {
    credential = await claim(oncall, grant.id, 'orders-readonly');
    return `oncall claims a login made for this grant alone: ${credential.handle}, shown once`;
  });
  const open = await openSession(house, credential);
  await tell('connected', async () => {
    const { rows } = await open.client.query<{ orders: number; who: string }>('SELECT count(*)::int AS orders, current_user AS who FROM orders');
    const toAccess = Math.round(performance.now() - began);
    await expectDenied(open.client, 'DELETE FROM orders');
    return {
      says: `a real SELECT as ${rows[0]?.who}: ${rows[0]?.orders} orders; DELETE is denied; the session stays open`,
      measured: { 'time to access': toAccess },
    };
  });
  await endOfAccess(house, credential, open, new Date(grant.endsAt), tell);
  return request.id;
}

/** Gives the request's id. */
async function glassRound(house: House, people: Record<'oncall' | 'lead', Api>, tell: Tell): Promise<string> {
  const { oncall, lead } = people;
  let requestId = '';
  await tell('break-glass', async () => {
    const began = performance.now();
    const asked = await oncall('POST', '/requests', {
      entitlements: ['orders-readonly'],
      duration: '8s',
      reason: 'checkout is down and nobody answers',
      incident: 'INC-4312',
      breakGlass: true,
    });
    expect(asked.status === 201 && asked.body['state'] === 'approved', `break-glass was refused: ${asked.text}`);
    const grant = asked.body['grant'] as { id: string; endsAt: string };
    requestId = String(asked.body['id']);
    const credential = await claim(oncall, grant.id, 'orders-readonly');
    const open = await openSession(house, credential);
    await open.client.query('SELECT 1 FROM orders LIMIT 1');
    const toAccess = Math.round(performance.now() - began);
    const measured: Record<string, number> = { 'time to access': toAccess };
    await endOfAccess(house, credential, open, new Date(grant.endsAt), quietly(measured));
    return { says: 'a second round by break-glass, without waiting for anyone: opened, used, cut, refused, gone', measured };
  });
  await tell('review-due', async () => {
    const listed = await lead('GET', '/reviews?state=due');
    const review = (listed.body['items'] as { requestId: string; id: string; mayClose: boolean; dueAt: string }[]).find((one) => one.requestId === requestId);
    expect(review?.mayClose, 'no review is due for it');
    const own = await oncall('POST', `/reviews/${review.id}/close`, { verdict: 'justified', notes: 'all good' });
    expect(own.status === 403 && own.body['code'] === 'reviewer_not_allowed', `oncall could review their own use: ${own.text}`);
    return `a review is due until ${review.dueAt.slice(0, 16).replace('T', ' ')}; oncall may not close it, lead may`;
  });
  return requestId;
}

async function auditRound(house: House, people: Record<'auditor', Api>, tell: Tell): Promise<void> {
  const log = join(house.dataDirectory, 'audit.jsonl');
  const checkpoints = join(house.dataDirectory, 'checkpoints.jsonl');
  let entries = 0;
  await tell('audit-verified', async () => {
    for (const until = Date.now() + deadlineMs; ; await sleep(100)) {
      const head = await people.auditor('GET', '/audit/checkpoint');
      if (head.body['waiting'] === 0) break;
      expect(Date.now() < until, 'the log was not sealed');
    }
    await writeFile(log, (await people.auditor('GET', '/audit/export')).text);
    await writeFile(checkpoints, (await people.auditor('GET', '/audit/checkpoints')).text);
    const result = await verifyExport({ log, checkpoints, key: house.verifierKey });
    expect(result.ok, result.ok ? '' : result.message);
    const published = await verifyExport({ log, checkpoints: join(house.dataDirectory, 'checkpoints'), key: house.verifierKey });
    expect(published.ok, published.ok ? '' : `against the published checkpoints: ${published.message}`);
    entries = result.entries;
    return `auditor exports the log; the independent verifier agrees with all ${entries} entries, also against the checkpoints published outside the database`;
  });
  await tell('tamper-found', async () => {
    const lines = (await readFile(log, 'utf8')).split('\n');
    const index = lines.findLastIndex((line) => line.includes('"request.approved"'));
    const line = lines[index];
    expect(line, 'no approval in the export');
    const at = line.indexOf('go ahead');
    lines[index] = `${line.slice(0, at)}G${line.slice(at + 1)}`;
    const tampered = join(house.dataDirectory, 'tampered.jsonl');
    await writeFile(tampered, lines.join('\n'));
    const result = await verifyExport({ log: tampered, checkpoints, key: house.verifierKey });
    expect(!result.ok && result.index === index, result.ok ? 'the changed copy was believed' : `the wrong entry was named: ${result.index}, not ${index}`);
    return `a copy with one byte changed is refused, at entry ${index} of ${entries}`;
  });
}

/**
 * What moto leaves out, in front of the real moto: it writes down every call, refuses what Halligan's least rights or a role's
 * trust do not allow (judged by the policy evaluator), refuses what AWS's documentation says that AWS refuses, and can fail
 * in the ways in which AWS fails. Everything else is moto's.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Evaluator } from './iam-evaluator/evaluator.ts';

export interface Call {
  readonly action: string;
  readonly params: URLSearchParams;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** The access key id that was given back. */
  keyId?: string | undefined;
}

/** `once` and `always`: an answer in place of moto's. `stall`: no answer. `lost`: moto does it, and the answer is lost. */
export type Fault =
  | { readonly kind: 'answer'; readonly status: number; readonly code: string; readonly headers?: Record<string, string> }
  | { readonly kind: 'stall' }
  | { readonly kind: 'lost' };

export interface AwsGateDouble {
  readonly url: string;
  readonly calls: Call[];
  /** How many seconds AWS's clock is ahead of ours. */
  clockAheadSeconds: number;
  /** The next `times` calls of this action (any action for `*`) fail so. */
  fail(action: string, fault: Fault, times?: number): void;
  /** Waits for `ms` before a call of this action is passed on, until it is set to 0. */
  delay(action: string, ms: number): void;
  heal(): void;
  close(): Promise<void>;
}

export interface Rules {
  readonly account: string;
  readonly evaluator: Evaluator;
  /** Halligan's own role and its policy, as the least rights print it; null lets everything through. */
  readonly identity: { readonly arn: string; readonly policy: () => unknown } | null;
  /** The role's trust policy, and its inline policies by name, as moto holds them now. */
  readonly role: (name: string) => Promise<{ trust: unknown; arn: string } | null>;
  readonly inline: (name: string) => Promise<ReadonlyMap<string, string>>;
}

type Refused = { status: number; code: string; message: string };

export async function awsGateDouble(motoUrl: string, rules: Rules): Promise<AwsGateDouble> {
  const calls: Call[] = [];
  let faults: { action: string; fault: Fault; left: number }[] = [];
  const delays = new Map<string, number>();
  const gate = { clockAheadSeconds: 0 };
  const server = createServer((request, response) => {
    void serve(request, response).catch((error: Error) => {
      if (!response.headersSent) answer(response, { status: 500, code: 'GateBroken', message: error.stack ?? error.message });
    });
  });
  const answer = (response: ServerResponse, { status, code, message }: Refused, headers: Record<string, string> = {}): void => {
    const escaped = message.replace(/[<&>]/g, (sign) => `&#${sign.charCodeAt(0)};`);
    response.writeHead(status, { 'content-type': 'text/xml', date: date(), ...headers });
    response.end(
      `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>${escaped}</Message></Error><RequestId>gate</RequestId></ErrorResponse>`,
    );
  };
  const date = (): string => new Date(Date.now() + gate.clockAheadSeconds * 1_000).toUTCString();

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await textOf(request);
    const params = new URLSearchParams(body);
    const action = params.get('Action') ?? '';
    const call: Call = { action, params, at: Date.now() };
    calls.push(call);
    const due = faults.find((one) => one.left > 0 && (one.action === action || one.action === '*'));
    if (due) due.left -= 1;
    if (due?.fault.kind === 'stall') return;
    if (due?.fault.kind === 'answer') return answer(response, { ...due.fault, message: `a fault of the test: ${due.fault.code}` }, due.fault.headers);
    await sleep(delays.get(action) ?? 0);
    const refused = (await refusedByRights(rules, action, params)) ?? (await refusedByForm(rules, action, params));
    if (refused) return answer(response, refused);
    const { host: _host, 'content-length': _length, connection: _connection, ...headers } = request.headers;
    const passed = await fetch(`${motoUrl}${request.url}`, { method: 'POST', headers: headers as Record<string, string>, body });
    const text = await passed.text();
    call.keyId = /<AccessKeyId>(\w+)<\/AccessKeyId>/.exec(text)?.[1];
    if (due?.fault.kind === 'lost') return void request.socket.resetAndDestroy();
    response.writeHead(passed.status, { 'content-type': passed.headers.get('content-type') ?? 'text/xml', date: date() });
    response.end(text);
  }

  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  return Object.assign(gate, {
    url: `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`,
    calls,
    fail: (action: string, fault: Fault, times = 1) => void faults.push({ action, fault, left: times }),
    delay: (action: string, ms: number) => void delays.set(action, ms),
    heal: () => {
      faults = [];
      delays.clear();
      gate.clockAheadSeconds = 0;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  });
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

const tagsOf = (params: URLSearchParams): [string, string][] =>
  [...params.keys()].flatMap((key) => {
    const [, at] = /^Tags\.member\.(\d+)\.Key$/.exec(key) ?? [];
    return at === undefined ? [] : [[params.get(key) ?? '', params.get(`Tags.member.${at}.Value`) ?? ''] as [string, string]];
  });

/** A signed call is judged by Halligan's identity policy, and taking a role by the role's trust as well. */
async function refusedByRights({ account, evaluator, identity, role }: Rules, action: string, params: URLSearchParams): Promise<Refused | null> {
  if (!identity || action === 'AssumeRoleWithWebIdentity' || action === 'GetCallerIdentity') return null;
  const policy = identity.policy();
  const isAssuming = action === 'AssumeRole';
  const name = params.get('RoleName') ?? params.get('RoleArn')?.split('/').at(-1);
  const found = name === undefined ? null : await role(name);
  const resource = params.get('RoleArn') ?? params.get('PolicyArn') ?? found?.arn ?? `arn:aws:iam::${account}:role/${name}`;
  const tags = tagsOf(params);
  const asked = isAssuming
    ? ['sts:AssumeRole', ...(tags.length > 0 ? ['sts:TagSession'] : []), ...(params.has('SourceIdentity') ? ['sts:SetSourceIdentity'] : [])]
    : [`iam:${action}`];
  for (const one of asked) {
    const context: Record<string, string | string[]> = {};
    if (isAssuming) {
      context['sts:RoleSessionName'] = params.get('RoleSessionName') ?? '';
      if (params.has('SourceIdentity')) context['sts:SourceIdentity'] = params.get('SourceIdentity') ?? '';
      for (const [key, value] of tags) context[`aws:RequestTag/${key}`] = value;
      context['aws:TagKeys'] = tags.map(([key]) => key);
    }
    const question = {
      principal: identity.arn,
      account,
      action: one,
      resource,
      context,
      identity: [policy],
      ...(isAssuming && found ? { onResource: found.trust } : {}),
    };
    if (!(await evaluator(question)))
      return { status: 403, code: 'AccessDenied', message: `User: ${identity.arn} is not authorized to perform: ${one} on resource: ${resource}` };
  }
  return null;
}

const invalid = (message: string): Refused => ({ status: 400, code: 'ValidationError', message });

/** Limits that AWS documents (STS and IAM API References) and moto does not keep. */
async function refusedByForm({ inline }: Rules, action: string, params: URLSearchParams): Promise<Refused | null> {
  if (action === 'AssumeRole') {
    const seconds = Number(params.get('DurationSeconds') ?? 3_600);
    if (seconds < 900)
      return invalid(`Value '${seconds}' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900`);
    if (seconds > 3_600) return invalid('The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining');
    if (!/^[\w+=,.@-]{2,64}$/.test(params.get('RoleSessionName') ?? '')) return invalid('roleSessionName failed to satisfy constraint');
    if (!/^[\w+=,.@-]{2,64}$/.test(params.get('SourceIdentity') ?? 'none')) return invalid('sourceIdentity failed to satisfy constraint');
    if ((params.get('Policy') ?? '').length > 2_048) return invalid('policy failed to satisfy constraint: Member must have length less than or equal to 2048');
    if (tagsOf(params).some(([key, value]) => key.length > 128 || value.length > 256)) return invalid('tags failed to satisfy constraint');
  }
  if (action === 'PutRolePolicy') {
    const document = params.get('PolicyDocument') ?? '';
    if (document === '{}') return { status: 400, code: 'MalformedPolicyDocument', message: 'Syntax errors in policy.' };
    const others = [...(await inline(params.get('RoleName') ?? ''))].filter(([name]) => name !== params.get('PolicyName')).map(([, text]) => text);
    const total = [document, ...others].join('').replace(/\s/g, '').length;
    if (total > 10_240)
      return { status: 409, code: 'LimitExceeded', message: `Maximum policy size of 10240 bytes exceeded for role ${params.get('RoleName')}` };
  }
  return null;
}

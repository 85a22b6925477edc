/**
 * Every route of the API × everybody × whether it is theirs. The table below must have a row for each route that the
 * server really has; every answer that succeeds is held against the form that `/openapi.json` describes.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cliTokenFor } from '../support/browserless-login.ts';
import { type Answer, apiOf, type House, startTestHouse, until } from '../support/house.ts';
import { ask, claim, granted } from '../support/house-verbs.ts';
import { apiTable, mountedApiRoutes, nameOf } from '../support/routes.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse();
  for (const person of Object.values(people)) if (person) await house.tokenOf(person);
});
afterAll(() => house?.close());

const people = {
  anonymous: null,
  requester: 'oncall',
  'another on call': 'oncall-2',
  approver: 'lead',
  'second approver': 'lead-2',
  reviewer: 'reviewer',
  auditor: 'auditor',
  admin: 'admin',
  stranger: 'stranger',
} as const;
type Role = keyof typeof people;
const roles = Object.keys(people) as Role[];

/** Status and code of each role; `rest` is for those that are not named. Anonymous is 401 unless named. */
type Expected = Partial<Record<Role, string>> & { rest: string };

interface Row {
  readonly expect: Expected;
  /** What the call is made on, fresh for each. */
  readonly on?: (role: Role) => Promise<Record<string, string>>;
  readonly body?: (on: Record<string, string>) => unknown;
  readonly query?: string;
  /** For calls that end the caller's own login. */
  readonly freshLogin?: boolean;
}

const seesIt: Expected = { 'another on call': '404 not_found', stranger: '404 not_found', rest: '200' };
const readsAll: Expected = { auditor: '200', admin: '200', rest: '403 not_eligible' };
const mayEnd: Expected = { approver: '200', 'second approver': '200', reviewer: '200', admin: '200', rest: '404 not_found' };
const request = async () => ({ ...(await ask(house)) });
const grant = async () => ({ id: (await granted(house)).grant });
const sealedGrant = async () => {
  const made = await grant();
  await until('its events are sealed', async () => (await house.database.superuser.query('SELECT FROM audit_pending')).rowCount === 0);
  return made;
};
const incident = async () => {
  const ref = `INC-${Math.floor(Math.random() * 1e9)}`;
  await granted(house, { incident: ref });
  return { ref };
};
/** A review of a use that is over. */
const review = async () => {
  const oncall = await house.apiAs('oncall');
  const opened = await oncall.post<{ grant: { id: string } }>('/requests', {
    entitlements: ['orders-readonly'],
    duration: '5m',
    reason: 'an emergency',
    breakGlass: true,
  });
  const id = opened.body.grant.id;
  await oncall.post(`/grants/${id}/return`);
  const { rows } = await house.database.superuser.query<{ id: string }>('SELECT id FROM review WHERE grant_id = $1', [id]);
  return { id: rows[0]!.id };
};
/** A webhook that could not be called, as its row stands. */
const failedWebhook = async () => {
  const { id } = await ask(house);
  const { rows } = await house.database.superuser.query<{ id: string }>(
    `WITH n AS (INSERT INTO notice (id, type, request_id, spread_at) VALUES ('ntc_' || md5(random()::text), 'request.submitted', $1, now()) RETURNING id)
     INSERT INTO delivery (id, notice_id, request_id, channel, form, address, state, last_error) SELECT 'dlv_' || md5(random()::text), n.id, $1, 'webhook', 'card', 'pager', 'failed', 'answered 500' FROM n RETURNING id`,
    [id],
  );
  return { id: rows[0]!.id };
};
const asking = () => ({ entitlements: ['orders-readonly'], duration: '5m', reason: 'a reason' });

const matrix: Record<string, Row> = {
  'GET /me': { expect: { rest: '200' } },
  'GET /entitlements': { expect: { rest: '200' } },
  'POST /requests': { body: asking, expect: { requester: '201', 'another on call': '201', rest: '403 not_eligible' } },
  'GET /requests': { expect: { rest: '200' } },
  'GET /requests/:id': { on: request, expect: seesIt },
  'POST /requests/:id/decisions': {
    on: request,
    body: ({ seen }) => ({ decision: 'approve', reason: 'go on', seen }),
    expect: {
      requester: '403 self_decision',
      'another on call': '404 not_found',
      stranger: '404 not_found',
      approver: '200',
      'second approver': '200',
      rest: '403 not_an_approver',
    },
  },
  'POST /requests/:id/withdraw': { on: request, expect: { requester: '200', rest: '404 not_found' } },
  'GET /grants': { expect: { rest: '200' } },
  'GET /grants/:id': { on: grant, expect: seesIt },
  'POST /grants/:id/leases': { on: grant, body: () => ({ entitlement: 'orders-readonly' }), expect: { requester: '201', rest: '404 not_found' } },
  'POST /grants/:id/return': { on: grant, expect: { requester: '200', rest: '404 not_found' } },
  'POST /grants/:id/revoke': { on: grant, body: () => ({ reason: 'enough' }), expect: mayEnd },
  'POST /incidents/:ref/revoke': { on: incident, body: () => ({ reason: 'it is over' }), expect: mayEnd },
  'GET /reviews': { expect: { rest: '200' } },
  'GET /reviews/:id': { on: review, expect: seesIt },
  'POST /reviews/:id/close': {
    on: review,
    body: () => ({ verdict: 'justified', notes: 'seen' }),
    expect: { requester: '403 reviewer_not_allowed', reviewer: '200', admin: '200', rest: '404 not_found' },
  },
  'GET /requests/:id/deliveries': { on: request, expect: seesIt },
  'POST /deliveries/:id/repeat': {
    on: failedWebhook,
    expect: { admin: '200', 'another on call': '404 not_found', stranger: '404 not_found', rest: '403 not_eligible' },
  },
  'GET /audit/events': { expect: { rest: '200' } },
  'GET /audit/export': { expect: readsAll },
  'GET /audit/checkpoints': { expect: readsAll },
  'GET /audit/checkpoint': { expect: { rest: '200' } },
  'GET /audit/proof/:index': { on: async () => ({ index: '0' }), expect: readsAll },
  'GET /system': { expect: readsAll },
  'GET /quarantine': { expect: readsAll },
  'POST /quarantine/lift': { body: () => ({ reason: 'looked at' }), expect: { admin: '409 quarantine_not_on', rest: '403 not_eligible' } },
  'GET /grants/:id/evidence': { on: sealedGrant, expect: seesIt },
  'POST /login/token': {
    body: () => ({ code: 'x', code_verifier: 'v'.repeat(43), redirect_uri: 'http://127.0.0.1:1/callback' }),
    expect: { anonymous: '400 login_code_invalid', rest: '400 login_code_invalid' },
  },
  'POST /device/start': { body: () => ({}), expect: { anonymous: '200', rest: '200' } },
  'POST /device/token': { body: () => ({ device_code: 'x' }), expect: { anonymous: '400 login_code_invalid', rest: '400 login_code_invalid' } },
  'GET /me/logins': { expect: { rest: '200' } },
  'DELETE /me/logins': { freshLogin: true, expect: { rest: '200' } },
  'DELETE /me/logins/:id': { on: async () => ({ id: `tok_${'0'.repeat(32)}` }), expect: { rest: '404 not_found' } },
  'DELETE /me/login': { freshLogin: true, expect: { rest: '200' } },
};

test('every route that the server has stands in the table of the API, in this matrix, and in /openapi.json', async () => {
  const mounted = mountedApiRoutes(house.running.server!);
  const table = apiTable.map(nameOf).sort();
  expect(mounted).toEqual(table);
  expect(Object.keys(matrix).sort()).toEqual(table);
  const described = (await (await fetch(`${house.url}/openapi.json`)).json()) as { paths: Record<string, Record<string, unknown>> };
  const inDescription = Object.entries(described.paths)
    .flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace('/api/v1', '').replaceAll(/\{(\w+)\}/g, ':$1')}`),
    )
    .sort();
  expect(inDescription).toEqual(table);
});

async function callAs(role: Role, name: string, row: Row): Promise<Answer> {
  const on = (await row.on?.(role)) ?? {};
  const [method = '', path = ''] = name.split(' ');
  const address = `${path.replaceAll(/:(\w+)/g, (_, key: string) => encodeURIComponent(on[key] ?? ''))}${row.query ?? ''}`;
  const person = people[role];
  const api = row.freshLogin && person ? apiOf(house.url, (await cliTokenFor(house.url, person)).token) : await house.apiAs(person);
  const answer = await api.call(method, address, row.body?.(on));
  // Logging out everywhere ended the login that the other calls use.
  if (row.freshLogin && person) house.forgetToken(person);
  return answer;
}

describe('the matrix', () => {
  for (const [name, row] of Object.entries(matrix)) {
    test(name, async () => {
      const route = apiTable.find((one) => nameOf(one) === name);
      expect(route, 'the route exists').toBeDefined();
      const outcomes: Record<string, string> = {};
      const expected: Record<string, string> = {};
      for (const role of roles) {
        const answer = await callAs(role, name, row);
        outcomes[role] = `${answer.status} ${answer.body.code ?? ''}`.trim();
        expected[role] = row.expect[role] ?? (role === 'anonymous' ? '401 not_logged_in' : row.expect.rest);
        if (answer.status < 300 && route?.answer) expect(route.answer.parse(answer.body), `${name} as ${role} answers as it is described`).toEqual(answer.body);
        if (answer.status >= 400) {
          expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
          expect(answer.body).toMatchObject({ status: answer.status, type: `urn:halligan:error:${answer.body.code}` });
        }
        expect(answer.headers.get('cache-control')).toBe('no-store');
      }
      expect(outcomes).toEqual(expected);
    }, 60_000);
  }
});

test('what somebody may not see is refused as if it were not there, in the same words, and is witnessed', async () => {
  const { grant: id } = await granted(house);
  const other = await house.apiAs('oncall-2');
  const unknown = `gnt_${'f'.repeat(32)}`;
  const [theirs, none] = [await other.get(`/grants/${id}`), await other.get(`/grants/${unknown}`)];
  expect(theirs.body.detail?.replace(id, 'X')).toBe(none.body.detail?.replace(unknown, 'X'));
  const { id: person } = await house.actor('oncall-2');
  const { rows } = await house.database.superuser.query<{ line: string }>(`SELECT line FROM audit_event WHERE type = 'access.refused' AND actor_id = $1`, [
    person,
  ]);
  expect(rows.some((row) => row.line.includes(`/grants/${id}`))).toBe(true);
  const claimed = await claim(house, id, 'oncall-2');
  expect(claimed.body.code).toBe('not_found');
});

test('/openapi.json is a 3.1 description whose references resolve, whose paths declare their parameters and whose operations have one name each', async () => {
  const described = (await (await fetch(`${house.url}/openapi.json`)).json()) as {
    openapi: string;
    paths: Record<
      string,
      Record<string, { operationId: string; parameters: { name: string; in: string; required: boolean; schema: object }[]; responses: object }>
    >;
  };
  expect(described.openapi).toMatch(/^3\.1\.\d+$/);
  const ids: string[] = [];
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const operation of Object.values(methods)) {
      ids.push(operation.operationId);
      const declared = operation.parameters.filter((parameter) => parameter.in === 'path').map((parameter) => parameter.name);
      expect(declared.sort(), path).toEqual([...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort());
      expect(operation.responses).toHaveProperty('default');
    }
  }
  expect(new Set(ids).size).toBe(ids.length);
  const references: string[] = [];
  JSON.stringify(described, (key, value: unknown) => {
    if (key === '$ref' && typeof value === 'string') references.push(value);
    return value;
  });
  for (const reference of references) {
    expect(reference).toMatch(/^#\//);
    const found = reference
      .slice(2)
      .split('/')
      .reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], described);
    expect(found, reference).toBeDefined();
  }
});

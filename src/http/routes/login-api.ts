/** The login API: how terminals get their tokens, and how people see and end their logins. */
import type { Auth } from '../../auth/auth.ts';
import { exchangeCliCode, type LoggedIn } from '../../auth/cli-codes.ts';
import { deviceCodeSeconds, pollDeviceLogin, pollSeconds, startDeviceLogin } from '../../auth/device-codes.ts';
import { endAllLogins, endLogin, listLogins } from '../../auth/logins.ts';
import { needParameters, readNeed } from '../../auth/wishes.ts';
import { type Route, route } from '../route.ts';
import { devicePollBody, deviceStartAnswer, deviceStartBody, endedAnswer, exchangeBody, loginIdParams, loginsAnswer, tokenAnswer } from '../schemas/login.ts';

const text = (value: number | undefined): string | undefined => (value === undefined ? undefined : String(value));

const tokenOf = ({ token, expiresAt, person }: LoggedIn) => ({ token, expiresAt: expiresAt.toISOString(), person });

/** The routes, for the table that the router and the OpenAPI description are made from. */
export const loginApi = (auth: Auth): Route[] => [...terminalRoutes(auth), ...ownLoginRoutes(auth)];

const terminalRoutes = ({ ctx, config, limits }: Auth): Route[] => [
  route({
    method: 'post',
    path: '/login/token',
    summary: 'Exchange the code of a browser login for a token',
    auth: 'none',
    body: exchangeBody,
    answer: tokenAnswer,
    async handle({ body, request, response }) {
      await limits.codeExchange(request.ip ?? '');
      response.setHeader('cache-control', 'no-store');
      return tokenOf(await exchangeCliCode(ctx, { code: body.code, verifier: body.code_verifier, redirectUri: body.redirect_uri }));
    },
  }),
  route({
    method: 'post',
    path: '/device/start',
    summary: 'Start a login by code, for a terminal without a browser',
    auth: 'none',
    body: deviceStartBody,
    answer: deviceStartAnswer,
    async handle({ body, request, response }) {
      await limits.deviceStart(request.ip ?? '');
      response.setHeader('cache-control', 'no-store');
      const { deviceCode, userCode } = await startDeviceLogin(ctx, body.label ?? '');
      const page = new URL('/device', config.serverUrl);
      const need = readNeed({ max_age: text(body.max_age), acr_values: body.acr_values, groups_max_age: text(body.groups_max_age) });
      page.search = new URLSearchParams(needParameters(need)).toString();
      const complete = new URL(page);
      complete.searchParams.set('user_code', userCode);
      return {
        device_code: deviceCode,
        user_code: userCode,
        verification_uri: page.href,
        verification_uri_complete: complete.href,
        interval: pollSeconds,
        expires_in: deviceCodeSeconds,
      };
    },
  }),
  route({
    method: 'post',
    path: '/device/token',
    summary: 'Ask whether a login by code was confirmed',
    auth: 'none',
    body: devicePollBody,
    answer: tokenAnswer,
    async handle({ body, request, response }) {
      await limits.codeExchange(request.ip ?? '');
      response.setHeader('cache-control', 'no-store');
      return tokenOf(await pollDeviceLogin(ctx, body.device_code));
    },
  }),
];

const ownLoginRoutes = ({ ctx }: Auth): Route[] => [
  route({
    method: 'get',
    path: '/me/logins',
    summary: "The caller's logins",
    auth: 'person',
    answer: loginsAnswer,
    async handle({ actor }) {
      const logins = await listLogins(ctx, actor);
      return {
        logins: logins.map((login) => ({
          ...login,
          createdAt: login.createdAt.toISOString(),
          seenAt: login.seenAt.toISOString(),
          expiresAt: login.expiresAt.toISOString(),
        })),
      };
    },
  }),
  route({
    method: 'delete',
    path: '/me/logins',
    summary: 'Log out everywhere',
    auth: 'person',
    answer: endedAnswer,
    handle: async ({ actor }) => ({ ended: await endAllLogins(ctx, actor) }),
  }),
  route({
    method: 'delete',
    path: '/me/logins/:id',
    summary: "End one of the caller's logins",
    auth: 'person',
    params: loginIdParams,
    answer: endedAnswer,
    async handle({ actor, params }) {
      await endLogin(ctx, actor, params.id);
      return { ended: 1 };
    },
  }),
  route({
    method: 'delete',
    path: '/me/login',
    summary: 'Log out of the login that makes this call',
    auth: 'person',
    answer: endedAnswer,
    async handle({ actor }) {
      await endLogin(ctx, actor, actor.loginId);
      return { ended: 1 };
    },
  }),
];

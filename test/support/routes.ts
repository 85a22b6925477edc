/** Every route that a running server really has, read from its routers, so that a test can notice one that it does not know. */
import type { Server } from 'node:http';
import type { Route } from '../../src/http/route.ts';
import { auditRoutes } from '../../src/http/routes/audit.ts';
import { deliveryRoutes } from '../../src/http/routes/deliveries.ts';
import { grantRoutes } from '../../src/http/routes/grants.ts';
import { loginApi } from '../../src/http/routes/login-api.ts';
import { meRoutes } from '../../src/http/routes/me.ts';
import { quarantineRoutes } from '../../src/http/routes/quarantine.ts';
import { requestRoutes } from '../../src/http/routes/requests.ts';
import { reviewRoutes } from '../../src/http/routes/reviews.ts';
import { systemRoutes } from '../../src/http/routes/system.ts';

/** The table of the API, as the composition root puts it together. */
export const apiTable: readonly Route[] = [
  ...meRoutes,
  ...requestRoutes,
  ...grantRoutes,
  ...reviewRoutes,
  ...deliveryRoutes,
  ...auditRoutes,
  ...systemRoutes,
  ...quarantineRoutes({} as Parameters<typeof quarantineRoutes>[0]),
  ...loginApi({} as Parameters<typeof loginApi>[0]),
];

export const nameOf = (route: Pick<Route, 'method' | 'path'>): string => `${route.method.toUpperCase()} ${route.path}`;

interface Layer {
  readonly route?: { readonly path: string | string[]; readonly stack: readonly { readonly method?: string }[] };
  readonly handle: { readonly stack?: readonly Layer[] };
  match(path: string): boolean;
}

const walk = (layers: readonly Layer[]): string[] =>
  layers.flatMap((layer) => {
    const { route } = layer;
    if (route) {
      const methods = [...new Set(route.stack.flatMap((one) => one.method ?? []))];
      return [route.path].flat().flatMap((path) => methods.map((method) => `${method.toUpperCase()} ${path}`));
    }
    return layer.handle.stack ? walk(layer.handle.stack) : [];
  });

interface App {
  readonly router: { readonly stack: readonly Layer[] };
}
/** The express application; others listen to calls as well. */
const appOf = (server: Server): App => (server.listeners('request') as unknown as Partial<App>[]).find((one): one is App => one.router !== undefined)!;

/** The routes beside the API: pages, forms, health, assets. `GET /path`. */
export function pageRoutes(server: Server): string[] {
  const layers = appOf(server).router.stack.filter((layer) => layer.route !== undefined || (layer.handle.stack !== undefined && layer.match('/anything')));
  return [...new Set(walk(layers))].sort();
}

/** The routes of `/api/v1` as the router has them. */
export function mountedApiRoutes(server: Server): string[] {
  const layer = appOf(server).router.stack.find((one) => one.handle.stack !== undefined && !one.match('/anything') && one.match('/api/v1/me'));
  return [...new Set(walk(layer!.handle.stack!))].filter((name) => /^(GET|POST|DELETE|PUT|PATCH) /.test(name)).sort();
}

/** Webhooks by the Standard Webhooks specification: signed, with an id that stays the same when a call is repeated. */
import { lookup } from 'node:dns/promises';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { BlockList, isIP } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { readSecret } from '../config/secrets.ts';
import type { WebhookConfig } from '../config/tell.ts';
import { type Channel, type Delivery, DeliveryFault, type Story } from './channel.ts';
import { headline } from './words.ts';

/** What a webhook gets: `type`, `timestamp` and `data`, as the specification recommends. All of it is public to whoever may read the request. */
export function payloadOf(story: Story): object {
  const { request } = story;
  return {
    type: story.type,
    timestamp: story.at.toISOString(),
    data: {
      headline: headline(story),
      url: story.url,
      grant: story.grantId,
      lease: story.leaseId,
      request: {
        id: request.id,
        state: request.state,
        person: request.person,
        entitlements: request.entitlements.map(({ name, opens, target, described, unreadable }) => ({
          name,
          opens,
          target,
          described: described?.summary ?? null,
          unreadable,
        })),
        durationSeconds: request.durationSeconds,
        reason: request.reason,
        incident: request.incident,
        breakGlass: request.breakGlass,
        createdAt: request.createdAt.toISOString(),
        lapsesAt: request.lapsesAt.toISOString(),
        startsAt: request.grant?.startsAt.toISOString() ?? null,
        endsAt: request.grant?.endsAt.toISOString() ?? null,
        endReason: request.grant?.endReason ?? null,
      },
    },
  };
}

/** The channel for webhooks; a delivery's address is a webhook's name. 410 means that nobody listens there any more, and ends that delivery. */
export function webhookChannel(webhooks: ReadonlyMap<string, WebhookConfig>): Channel {
  return {
    name: 'webhook',
    async send(delivery, story, signal) {
      const hook = webhooks.get(delivery.address);
      if (!hook) throw new DeliveryFault(`the webhook ${delivery.address} is no longer in the config`, { final: true });
      await call(hook, delivery, story, signal);
      return {};
    },
  };
}

async function call(hook: WebhookConfig, delivery: Delivery, story: Story, signal: AbortSignal): Promise<void> {
  const body = JSON.stringify(payloadOf(story));
  const now = new Date();
  const secret = await readSecret(hook.secret).catch((error: Error) => {
    throw new DeliveryFault(error.message);
  });
  const address = await allowedAddress(hook);
  const headers = {
    'content-type': 'application/json',
    'user-agent': 'halligan',
    'webhook-id': delivery.id,
    'webhook-timestamp': String(Math.floor(now.getTime() / 1_000)),
    'webhook-signature': new Webhook(secret).sign(delivery.id, now, body),
  };
  const { status, retryAfter } = await post(new URL(hook.url), address, headers, body, signal);
  if (status >= 200 && status < 300) return;
  if (status === 410) throw new DeliveryFault('answered 410: nobody listens there any more', { final: true });
  if (status >= 300 && status < 400) throw new DeliveryFault(`answered ${status}: redirects are not followed; put the final address into the config`);
  const seconds = /^\d{1,5}$/.test(retryAfter) ? Number(retryAfter) : undefined;
  throw new DeliveryFault(
    `answered ${status}`,
    seconds === undefined || (status !== 429 && status !== 503) ? {} : { retryAt: new Date(Date.now() + seconds * 1_000) },
  );
}

interface Address {
  readonly address: string;
  readonly family: number;
}

const closed = new BlockList();
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const)
  closed.addSubnet(net, bits, 'ipv4');
for (const [net, bits] of [
  ['::', 96],
  ['::ffff:0:0', 96],
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
  ['5f00::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const)
  closed.addSubnet(net, bits, 'ipv6');

/** Whether an address is of the public internet: not of this host, of private networks, nor set aside otherwise (IANA's special-purpose registries). */
export const isPublic = (address: string): boolean => {
  const family = isIP(address);
  return family !== 0 && !closed.check(address, family === 4 ? 'ipv4' : 'ipv6');
};

/** The address to connect to, looked up once: what was checked is what is called. Throws when one of the name's addresses may not be called. */
async function allowedAddress({ url, allowPrivate }: WebhookConfig): Promise<Address> {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  const found: Address[] = await lookup(host, { all: true }).catch(() => {
    throw new DeliveryFault('its name cannot be looked up');
  });
  const bad = found.find(({ address }) => !isPublic(address));
  if (bad && !allowPrivate) throw new DeliveryFault('its name leads to an address of this network, which is not called (allowPrivate)');
  const [first] = found;
  if (!first) throw new DeliveryFault('its name has no address');
  return first;
}

/** One POST to that very address; the name still counts for TLS and Host. No proxy, no redirect; the answer's body is thrown away. */
function post(url: URL, to: Address, headers: Record<string, string>, body: string, signal: AbortSignal): Promise<{ status: number; retryAfter: string }> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(
      url,
      {
        method: 'POST',
        headers: { ...headers, 'content-length': Buffer.byteLength(body) },
        signal,
        agent: false,
        lookup: (_host, options, done) => (options.all ? done(null, [to]) : done(null, to.address, to.family)),
      },
      (response) => {
        resolve({ status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'] ?? '' });
        response.destroy();
      },
    );
    request.on('error', (error: NodeJS.ErrnoException) => reject(new DeliveryFault(signal.aborted ? 'did not answer in time' : inWords(error.code))));
    request.end(body);
  });
}

function inWords(code: string | undefined): string {
  if (code === 'ECONNREFUSED') return 'nothing listens there';
  if (code && /^(ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/.test(code)) return `its certificate cannot be trusted (${code})`;
  return `could not be called${code ? ` (${code})` : ''}`;
}

/** Webhooks by the Standard Webhooks specification: signed, with an id that stays the same when a call is repeated. */
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Webhook } from 'standardwebhooks';
import { readSecret } from '../config/secrets.ts';
import type { WebhookConfig } from '../config/tell.ts';
import { type Address, allowedAddresses } from './addresses.ts';
import { type Channel, type ChannelTrouble, type Delivery, DeliveryFault, type Story } from './channel.ts';
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
    // Many at once, but few to one, so that those that hang leave room for the others.
    atOnce: { all: 16, each: 2 },
    async send(delivery, story, signal) {
      const hook = webhooks.get(delivery.address);
      if (!hook) throw new DeliveryFault(`the webhook ${delivery.address} is no longer in the config`, { final: true });
      await call(hook, delivery, story, signal);
      return {};
    },
    async check(signal) {
      const checks = [...webhooks.values()].map(async (hook): Promise<ChannelTrouble[]> => {
        const place = hook.name;
        try {
          // In its own words, which name the file or the variable.
          signer(await readSecret(hook.secret));
          await allowedAddresses(hook, signal);
          return [];
        } catch (error) {
          return [{ place, message: (error as Error).message, next: `Mend the block webhooks.${place} of the config, or its name's entry in DNS.` }];
        }
      });
      return (await Promise.all(checks)).flat();
    },
  };
}

/** Throws `DeliveryFault` for a secret that is none; it is not repeated. */
function signer(secret: string): Webhook {
  try {
    return new Webhook(secret);
  } catch {
    throw new DeliveryFault('its secret is not one of Standard Webhooks: whsec_ and base64');
  }
}

async function call(hook: WebhookConfig, delivery: Delivery, story: Story, signal: AbortSignal): Promise<void> {
  const body = JSON.stringify(payloadOf(story));
  const now = new Date();
  const secret = await readSecret(hook.secret).catch(() => {
    throw new DeliveryFault('its secret cannot be read');
  });
  const signature = signer(secret).sign(delivery.id, now, body);
  const addresses = await allowedAddresses(hook, signal);
  const headers = {
    'content-type': 'application/json',
    'user-agent': 'halligan',
    'webhook-id': delivery.id,
    'webhook-timestamp': String(Math.floor(now.getTime() / 1_000)),
    'webhook-signature': signature,
  };
  const { status, retryAfter } = await post(new URL(hook.url), addresses, headers, body, signal);
  if (status >= 200 && status < 300) return;
  if (status === 410) throw new DeliveryFault('answered 410: nobody listens there any more', { final: true });
  if (status >= 300 && status < 400) throw new DeliveryFault(`answered ${status}: redirects are not followed; put the final address into the config`);
  const seconds = /^\d{1,5}$/.test(retryAfter) ? Number(retryAfter) : undefined;
  throw new DeliveryFault(
    `answered ${status}`,
    seconds === undefined || (status !== 429 && status !== 503) ? {} : { retryAt: new Date(Date.now() + seconds * 1_000) },
  );
}

/** One POST to one of those very addresses; the name still counts for TLS and Host. No proxy, no redirect; the answer's body is thrown away. */
function post(
  url: URL,
  to: readonly Address[],
  headers: Record<string, string>,
  body: string,
  signal: AbortSignal,
): Promise<{ status: number; retryAfter: string }> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(
      url,
      {
        method: 'POST',
        headers: { ...headers, 'content-length': Buffer.byteLength(body) },
        signal,
        agent: false,
        lookup: (_host, options, done) => (options.all ? done(null, [...to]) : done(null, to[0]?.address ?? '', to[0]?.family)),
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

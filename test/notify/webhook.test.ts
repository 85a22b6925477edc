/** Webhooks, against real receivers over HTTP and HTTPS: signed, guarded, and refused in words. */
import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { Webhook } from 'standardwebhooks';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { WebhookConfig } from '../../src/config/tell.ts';
import { allowedAddresses, isPublic } from '../../src/notify/addresses.ts';
import { DeliveryFault } from '../../src/notify/channel.ts';
import { webhookChannel } from '../../src/notify/webhook.ts';
import { testCertificate } from '../support/certificate.ts';
import { type Receiver, startReceiver } from '../support/post.ts';
import { newDelivery, newStory } from './story.ts';

const secret = `whsec_${randomBytes(24).toString('base64')}`;
const certificate = testCertificate();
const before = getCACertificates('default');
const open: { close(): Promise<void> }[] = [];
beforeAll(() => {
  process.env['TEST_WEBHOOK_SECRET'] = secret;
  process.env['TEST_WEBHOOK_BAD'] = 'whsec_!!! no base64 !!!';
});
afterAll(() => {
  delete process.env['TEST_WEBHOOK_SECRET'];
  delete process.env['TEST_WEBHOOK_BAD'];
});
afterEach(async () => {
  setDefaultCACertificates(before);
  for (const one of open.splice(0)) await one.close();
});

async function receiver(...how: Parameters<typeof startReceiver>): Promise<Receiver> {
  const started = await startReceiver(...how);
  open.push(started);
  return started;
}
const hook = (url: string, more: Partial<WebhookConfig> = {}): WebhookConfig => ({
  name: 'pager',
  url,
  allowPrivate: true,
  secret: { env: 'TEST_WEBHOOK_SECRET' },
  ...more,
});
const delivery = newDelivery({ channel: 'webhook', address: 'pager' });
const send = (config: WebhookConfig, signal = AbortSignal.timeout(5_000), story = newStory()) =>
  webhookChannel(new Map([[config.name, config]])).send(delivery, story, signal);
async function faultOf(config: WebhookConfig, signal?: AbortSignal): Promise<DeliveryFault> {
  const fault = await send(config, signal).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(fault).toBeInstanceOf(DeliveryFault);
  return fault as DeliveryFault;
}

describe('what arrives', () => {
  test('is verified by the specification’s own library, as it came; another secret, body, id or time is not', async () => {
    const { url, calls } = await receiver();
    const story = newStory();
    await send(hook(url), undefined, story);
    const [call] = calls;
    const headers = call!.headers as Record<string, string>;
    const payload = new Webhook(secret).verify(call!.body, headers);
    expect(payload).toMatchObject({
      type: 'request.submitted',
      timestamp: story.at.toISOString(),
      data: { headline: 'On-call engineer asks to read the orders database for 1 hour', url: story.url, request: { id: story.request.id, state: 'pending' } },
    });
    expect(headers).toMatchObject({ 'webhook-id': delivery.id, 'content-type': 'application/json', 'user-agent': 'halligan' });
    const other = `whsec_${randomBytes(24).toString('base64')}`;
    expect(() => new Webhook(other).verify(call!.body, headers)).toThrow();
    expect(() => new Webhook(secret).verify(call!.body.replace('pending', 'approved'), headers)).toThrow();
    for (const [name, value] of [
      ['webhook-id', 'dlv_1'],
      ['webhook-timestamp', String(Number(headers['webhook-timestamp']) + 1)],
    ] as const)
      expect(() => new Webhook(secret).verify(call!.body, { ...headers, [name]: value }), name).toThrow();
  });

  test('the id stays the same when a call is repeated; the time and with it the signature are new', async () => {
    const at = await receiver();
    await send(hook(at.url));
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    await send(hook(at.url));
    const [first, second] = at.calls.map((call) => call.headers);
    expect(first!['webhook-id']).toBe(second!['webhook-id']);
    expect(first!['webhook-signature']).not.toBe(second!['webhook-signature']);
  });

  test('over https, when the certificate is of somebody known', async () => {
    const at = await receiver(certificate);
    expect((await faultOf(hook(at.url))).message).toMatch(/^its certificate cannot be trusted \(\w+\)$/);
    expect(at.calls).toEqual([]);
    setDefaultCACertificates([...before, certificate.cert]);
    await send(hook(at.url));
    await send(hook(at.url.replace('127.0.0.1', 'localhost')));
    expect(at.calls).toHaveLength(2);
    expect(at.calls[1]!.headers.host).toBe(`localhost:${at.port}`);
  });
});

describe('what goes wrong', () => {
  test('answers: 2xx is taken; 410 is final; anything else is tried again, with the wait that 429 and 503 ask for', async () => {
    const at = await receiver();
    for (const status of [200, 202, 204, 299]) {
      at.answer = () => status;
      await send(hook(at.url));
    }
    at.answer = () => 410;
    expect(await faultOf(hook(at.url))).toMatchObject({ final: true, message: 'answered 410: nobody listens there any more' });
    for (const status of [400, 401, 404, 500]) {
      at.answer = () => ({ status, headers: { 'retry-after': '60' } });
      expect(await faultOf(hook(at.url))).toMatchObject({ final: false, message: `answered ${status}`, retryAt: undefined });
    }
    for (const status of [429, 503]) {
      at.answer = () => ({ status, headers: { 'retry-after': '60' } });
      const { retryAt, pause } = await faultOf(hook(at.url));
      expect(Math.abs(retryAt!.getTime() - Date.now() - 60_000)).toBeLessThan(5_000);
      expect(pause).toBe(false);
    }
  });

  test('a redirect is not followed, wherever it leads', async () => {
    const inner = await receiver();
    const at = await receiver();
    for (const status of [301, 302, 303, 307, 308]) {
      at.answer = () => ({ status, headers: { location: inner.url } });
      expect((await faultOf(hook(at.url))).message).toBe(`answered ${status}: redirects are not followed; put the final address into the config`);
    }
    expect(inner.calls).toEqual([]);
  });

  test('one that hangs ends with the signal: before the answer, and in the middle of its head', async () => {
    const at = await receiver();
    at.answer = () => 'hang';
    expect(await faultOf(hook(at.url), AbortSignal.timeout(300))).toMatchObject({ message: 'did not answer in time', final: false });
    const dripping: Server = createServer((request) => {
      request.socket.write('HTTP/1.1 200 OK\r\nx: ');
    });
    await new Promise<void>((resolve) => dripping.listen(0, '127.0.0.1', resolve));
    open.push({
      close: () =>
        new Promise((resolve) => {
          dripping.close(() => resolve());
          dripping.closeAllConnections();
        }),
    });
    const { port } = dripping.address() as { port: number };
    expect((await faultOf(hook(`http://127.0.0.1:${port}/`), AbortSignal.timeout(300))).message).toBe('did not answer in time');
  });

  test('an answer without an end is not read', async () => {
    const endless: Server = createServer((_request, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write('x'.repeat(1_000)), 5);
      response.on('close', () => clearInterval(timer));
    });
    await new Promise<void>((resolve) => endless.listen(0, '127.0.0.1', resolve));
    open.push({ close: () => new Promise((resolve) => endless.close(() => resolve())) });
    await send(hook(`http://127.0.0.1:${(endless.address() as { port: number }).port}/`), AbortSignal.timeout(2_000));
  });

  test('nothing there, no such name, a secret that is none or missing, a webhook that left the config', async () => {
    const at = await receiver();
    await open.pop()!.close();
    expect((await faultOf(hook(at.url))).message).toBe('nothing listens there');
    expect((await faultOf(hook('https://no-such-name.invalid/'))).message).toBe('its name cannot be looked up');
    expect((await faultOf(hook(at.url, { secret: { env: 'TEST_WEBHOOK_BAD' } }))).message).toBe(
      'its secret is not one of Standard Webhooks: whsec_ and base64',
    );
    expect((await faultOf(hook(at.url, { secret: { file: '/nowhere/secret' } }))).message).toBe('its secret cannot be read');
    expect(await faultOf(hook(at.url, { name: 'another' }))).toMatchObject({ final: true, message: 'the webhook pager is no longer in the config' });
  });
});

describe('the guard', () => {
  test.each([
    'http://127.0.0.1/',
    'http://localhost/',
    'http://2130706433/',
    'http://0x7f.1/',
    'http://0/',
    'http://[::1]/',
    'http://[::]/',
    'http://[::ffff:127.0.0.1]/',
    'http://[::ffff:a9fe:a9fe]/',
    'http://169.254.169.254/latest/meta-data',
    'http://10.1.2.3/',
    'http://172.31.255.255/',
    'http://192.168.0.1/',
    'http://100.64.0.1/',
    'http://[fd00::1]/',
    'http://[fe80::1]/',
    'http://[64:ff9b::7f00:1]/',
    'http://224.0.0.1/',
    'http://255.255.255.255/',
  ])('%s is not called without allowPrivate, and nobody is connected to', async (url) => {
    const fault = await faultOf(hook(url, { allowPrivate: false }));
    expect(fault.message).toBe('its name leads to an address of this network, which is not called (allowPrivate)');
  });

  test('a name that leads to this machine is judged by its address: a receiver that listens there hears nothing', async () => {
    const at = await receiver();
    const byName = at.url.replace('127.0.0.1', 'localhost');
    expect((await faultOf(hook(byName, { allowPrivate: false }))).message).toContain('allowPrivate');
    expect(at.calls).toEqual([]);
    await send(hook(byName));
    expect(at.calls).toHaveLength(1);
  });

  test('what is public, and what is not', () => {
    for (const address of [
      '1.1.1.1',
      '8.8.8.8',
      '9.9.9.9',
      '172.15.0.1',
      '172.32.0.1',
      '192.167.0.1',
      '100.63.0.1',
      '223.255.255.255',
      '2606:4700::1',
      '2a00::1',
    ])
      expect(isPublic(address), address).toBe(true);
    for (const address of ['', 'x', '127.0.0.1', '::ffff:10.0.0.1', '::ffff:8.8.8.8', '::127.0.0.1', '2002:7f00:1::', '2001:db8::1', 'ff02::1', '240.0.0.1'])
      expect(isPublic(address), address).toBe(false);
  });

  test('a lookup ends with the signal, too', async () => {
    const signal = AbortSignal.abort();
    await expect(allowedAddresses({ url: 'https://example.com/', allowPrivate: false }, signal)).rejects.toThrow('its name was not looked up in time');
  });
});

test('the doctor’s look: the name, the address and the secret, each webhook by itself; nobody is called', async () => {
  const at = await receiver();
  const channel = webhookChannel(
    new Map([
      ['good', hook(at.url, { name: 'good' })],
      ['closed', hook(at.url, { name: 'closed', allowPrivate: false })],
      ['unnamed', hook('https://no-such-name.invalid/', { name: 'unnamed' })],
      ['keyless', hook(at.url, { name: 'keyless', secret: { env: 'TEST_NOT_SET' } })],
    ]),
  );
  const found = await channel.check!(AbortSignal.timeout(5_000));
  expect(found.map(({ place, message }) => `${place}: ${message}`)).toEqual([
    'closed: its name leads to an address of this network, which is not called (allowPrivate)',
    'unnamed: its name cannot be looked up',
    'keyless: the environment variable TEST_NOT_SET is not set',
  ]);
  expect(at.calls).toEqual([]);
});

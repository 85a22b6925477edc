/** Mail, against a real SMTP server. */
import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { EmailConfig } from '../../src/config/tell.ts';
import { DeliveryFault } from '../../src/notify/channel.ts';
import { emailChannel } from '../../src/notify/email.ts';
import { testCertificate } from '../support/certificate.ts';
import { type MailServer, type MailServerOptions, startMailServer } from '../support/post.ts';
import { newDelivery, newRequestView, newStory } from './story.ts';

const certificate = testCertificate();
const password = randomBytes(12).toString('base64url');
const open: { close(): Promise<void> }[] = [];
const before = getCACertificates('default');
beforeAll(() => {
  process.env['TEST_MAIL_PASSWORD'] = password;
  process.env['TEST_MAIL_WRONG'] = 'not the password';
  setDefaultCACertificates([...before, certificate.cert]);
});
afterAll(() => {
  setDefaultCACertificates(before);
  delete process.env['TEST_MAIL_PASSWORD'];
  delete process.env['TEST_MAIL_WRONG'];
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

async function mailServer(options: MailServerOptions = {}): Promise<MailServer> {
  const server = await startMailServer(options);
  open.push(server);
  return server;
}
const configOf = (server: { port: number }, more: Partial<EmailConfig> = {}): EmailConfig => ({
  host: '127.0.0.1',
  port: server.port,
  tls: 'none',
  from: 'halligan@example.com',
  user: undefined,
  password: undefined,
  ...more,
});
const soon = (ms = 5_000): AbortSignal => AbortSignal.timeout(ms);

/** The fault that sending ends in. */
async function faultOf(config: EmailConfig, more: { delivery?: Parameters<typeof newDelivery>[0]; signal?: AbortSignal } = {}): Promise<DeliveryFault> {
  const fault = await emailChannel(config)
    .send(newDelivery(more.delivery), newStory(), more.signal ?? soon())
    .then(
      () => undefined,
      (error: unknown) => error,
    );
  expect(fault).toBeInstanceOf(DeliveryFault);
  return fault as DeliveryFault;
}

describe('what arrives', () => {
  test('over STARTTLS, logged in: text and HTML say who, what, how long, why and until when, with the page; one recipient', async () => {
    const server = await mailServer({ tls: 'starttls', certificate, user: 'halligan', password });
    const story = newStory();
    await emailChannel(configOf(server, { tls: 'starttls', user: 'halligan', password: { env: 'TEST_MAIL_PASSWORD' } })).send(newDelivery(), story, soon());
    const [mail] = server.mails;
    expect(mail).toMatchObject({ from: 'halligan@example.com', to: ['lead@example.com'], secure: true, user: 'halligan' });
    expect(mail!.subject).toBe('On-call engineer asks to read the orders database for 1 hour');
    for (const said of ['On-call engineer', 'SELECT on 3 tables of orders', '1 hour', 'the payments queue grows', 'INC-7', '2026-01-31 03:30 UTC', story.url]) {
      expect(mail!.text, said).toContain(said);
      expect(mail!.html, said).toContain(said);
    }
    expect(mail!.raw).not.toContain(password);
  });

  test('over implicit TLS', async () => {
    const server = await mailServer({ tls: 'implicit', certificate });
    await emailChannel(configOf(server, { tls: 'implicit' })).send(newDelivery(), newStory(), soon());
    expect(server.mails).toMatchObject([{ secure: true, user: undefined }]);
  });

  test('the same message sent twice bears the same Message-ID; two messages of one request are one thread', async () => {
    const server = await mailServer();
    const channel = emailChannel(configOf(server));
    const [delivery, story] = [newDelivery(), newStory()];
    for (const one of [delivery, delivery, newDelivery()]) await channel.send(one, story, soon());
    const headers = (name: string) => server.mails.map((mail) => new RegExp(`^${name}: (.*)\\r$`, 'mi').exec(mail.raw)?.[1]);
    const [first, second, third] = headers('Message-ID');
    expect(first).toBe(`<${delivery.id}@halligan.example.com>`);
    expect([second, third === first]).toEqual([first, false]);
    expect(new Set(headers('References'))).toEqual(new Set([`<${story.request.id}@halligan.example.com>`]));
    expect(headers('Auto-Submitted')[0]).toBe('auto-generated');
  });

  test('what a person wrote is text: no header, no markup, no hidden character comes of it', async () => {
    const server = await mailServer();
    const name = 'Eve\r\nBcc: everybody@example.com\r\n\r\n<b>hello</b>';
    const reason = '<script>alert(1)</script>\r\n.\r\nMAIL FROM:<x@example.com>\n\u202Eevil <a href="https://evil.example">click</a>';
    const request = newRequestView({ person: { id: 'per_1', name }, reason, incident: 'INC\r\nX-Evil: 1' });
    await emailChannel(configOf(server)).send(newDelivery(), newStory({ request }), soon());
    const [mail] = server.mails;
    expect(server.mails).toHaveLength(1);
    expect(mail!.to).toEqual(['lead@example.com']);
    const head = mail!.raw.slice(0, mail!.raw.indexOf('\r\n\r\n'));
    expect(head).not.toMatch(/^(bcc|x-evil):/im);
    expect(mail!.subject).toContain('Bcc: everybody@example.com');
    expect(mail!.html).not.toMatch(/<script|<b>|href="https:\/\/evil/);
    for (const text of [mail!.text, mail!.html]) {
      expect(text).toContain('[U+202E]evil');
      expect(text).not.toContain('\u202E');
    }
  });

  test('a very long and a broken text do no harm', async () => {
    const server = await mailServer();
    const request = newRequestView({ person: { id: 'per_1', name: 'x'.repeat(3_000) }, reason: `${'y'.repeat(2_000)}\ud800` });
    await emailChannel(configOf(server)).send(newDelivery(), newStory({ request }), soon());
    expect(server.mails[0]!.subject.length).toBeLessThanOrEqual(180);
    for (const line of server.mails[0]!.raw.split('\r\n')) expect(line.length).toBeLessThan(999);
  });
});

describe('what goes wrong', () => {
  test('no STARTTLS where it is asked for: nothing is sent in the clear, not even the password', async () => {
    const server = await mailServer({ user: 'halligan', password });
    const fault = await faultOf(configOf(server, { tls: 'starttls', user: 'halligan', password: { env: 'TEST_MAIL_PASSWORD' } }));
    expect(fault).toMatchObject({ message: 'the mail server does not offer TLS that can be trusted', final: false });
    expect(server.mails).toEqual([]);
  });

  test('a certificate of somebody unknown', async () => {
    const server = await mailServer({ tls: 'starttls', certificate: testCertificate() });
    const fault = await faultOf(configOf(server, { tls: 'starttls' }));
    expect(fault).toMatchObject({ message: 'the mail server does not offer TLS that can be trusted', final: false, placeOnly: false });
    expect(server.mails).toEqual([]);
  });

  test('a wrong password: tried again, and not repeated in the words', async () => {
    const server = await mailServer({ tls: 'starttls', certificate, user: 'halligan', password });
    const fault = await faultOf(configOf(server, { tls: 'starttls', user: 'halligan', password: { env: 'TEST_MAIL_WRONG' } }));
    expect(fault).toMatchObject({ message: 'the mail server refused our login', final: false });
  });

  test('4xx is tried again, 5xx about the address or the message is not; 421 and a refusing greeting are the server’s own trouble', async () => {
    const server = await mailServer();
    const config = configOf(server);
    const say = async (faults: MailServer['faults']) => {
      server.faults = faults;
      const { message, final, placeOnly } = await faultOf(config);
      return { message, final, placeOnly };
    };
    expect(await say({ rcpt: () => 451 })).toEqual({ message: 'the mail server answered 451 to RCPT TO', final: false, placeOnly: true });
    expect(await say({ rcpt: () => 550 })).toEqual({ message: 'the mail server answered 550 to RCPT TO', final: true, placeOnly: true });
    expect(await say({ data: 452 })).toEqual({ message: 'the mail server answered 452 to DATA', final: false, placeOnly: true });
    expect(await say({ data: 554 })).toEqual({ message: 'the mail server answered 554 to DATA', final: true, placeOnly: true });
    expect(await say({ data: 421 })).toMatchObject({ final: false, placeOnly: false });
    expect(await say({ greeting: 554 })).toMatchObject({ final: false, placeOnly: false });
  });

  test('a server that never greets, or never answers the message, ends with the signal', async () => {
    const server = await mailServer();
    for (const faults of [{ greeting: 'hang' }, { data: 'hang' }] as const) {
      server.faults = faults;
      const began = performance.now();
      const fault = await faultOf(configOf(server), { signal: soon(300) });
      expect(fault).toMatchObject({ message: 'the mail server did not answer in time', final: false });
      expect(performance.now() - began).toBeLessThan(2_000);
    }
  });

  test('nothing there; a port that speaks another protocol; a password that cannot be read', async () => {
    const server = await mailServer();
    await open.pop()!.close();
    expect((await faultOf(configOf(server))).message).toBe('the mail server could not be reached');
    const sockets = new Set<Socket>();
    const other: Server = createServer((socket) => {
      sockets.add(socket);
      socket.end('HTTP/1.1 400 Bad Request\r\nSecret: hunter2\r\n\r\n');
    });
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    open.push({ close: () => new Promise((resolve) => other.close(() => resolve())) });
    const fault = await faultOf(configOf(other.address() as { port: number }));
    expect(fault.message).not.toContain('hunter2');
    expect(fault.final).toBe(false);
    const unread = await faultOf(configOf(server, { user: 'halligan', password: { file: '/nowhere/secret' } }));
    expect(unread.message).toBe('the password for the mail server cannot be read');
  });

  test.each(['two@example.com, three@example.com', 'a b@example.com', 'no-address', 'x@example.com\r\nBcc: y@example.com', '<x@example.com>'])(
    'an address that is none is not sent to: %j',
    async (address) => {
      const server = await mailServer();
      expect(await faultOf(configOf(server), { delivery: { address } })).toMatchObject({ final: true });
      expect(server.connections).toBe(0);
    },
  );
});

test('the doctor’s look: greeting, TLS and login, in words; nothing is sent', async () => {
  const server = await mailServer({ tls: 'starttls', certificate, user: 'halligan', password });
  const check = (more: Partial<EmailConfig>) => emailChannel(configOf(server, { tls: 'starttls', user: 'halligan', ...more })).check!(soon());
  expect(await check({ password: { env: 'TEST_MAIL_PASSWORD' } })).toEqual([]);
  const place = `127.0.0.1:${server.port}`;
  expect(await check({ password: { env: 'TEST_MAIL_WRONG' } })).toMatchObject([{ place, message: 'the mail server refused our login' }]);
  expect(await check({ password: { env: 'TEST_NOT_SET' } })).toMatchObject([{ place, message: 'the environment variable TEST_NOT_SET is not set' }]);
  server.faults = { greeting: 'hang' };
  const slow = await emailChannel(configOf(server)).check!(soon(300));
  expect(slow).toMatchObject([{ message: 'the mail server did not answer in time' }]);
  expect(server.mails).toEqual([]);
});

/** Where messages arrive in tests: a real SMTP server and a real receiver of webhooks, both on 127.0.0.1, that can misbehave. */
import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { SMTPServer } from 'smtp-server';
import type { TestCertificate } from './certificate.ts';

export interface Mail {
  readonly from: string;
  readonly to: readonly string[];
  /** As it came over the wire. */
  readonly raw: string;
  readonly subject: string;
  /** The plain text, decoded. */
  readonly text: string;
  readonly html: string;
  /** Over TLS, and the user who logged in. */
  readonly secure: boolean;
  readonly user: string | undefined;
}

export interface MailServer {
  readonly port: number;
  readonly mails: Mail[];
  /** What it answers instead, by address or always; a number, or `hang`. */
  faults: { greeting?: 'hang' | number; rcpt?: (address: string) => number | undefined; data?: number | 'hang' };
  /** How often somebody connected. */
  connections: number;
  close(): Promise<void>;
}

export interface MailServerOptions {
  readonly certificate?: TestCertificate;
  readonly tls?: 'starttls' | 'implicit' | 'none';
  readonly user?: string;
  readonly password?: string;
}

const answer = (code: number): Error => Object.assign(new Error('no'), { responseCode: code });

/** Starts an SMTP server. */
export async function startMailServer({ certificate, tls = 'none', user, password }: MailServerOptions = {}): Promise<MailServer> {
  const mails: Mail[] = [];
  const state: MailServer = { port: 0, mails, faults: {}, connections: 0, close: async () => undefined };
  const server = new SMTPServer({
    secure: tls === 'implicit',
    disabledCommands: [...(tls === 'none' ? ['STARTTLS'] : []), ...(user === undefined ? ['AUTH'] : [])],
    ...(certificate ? { key: certificate.key, cert: certificate.cert } : {}),
    authOptional: user === undefined,
    closeTimeout: 200,
    onConnect(_session, done) {
      state.connections++;
      const { greeting } = state.faults;
      if (greeting === 'hang') return;
      if (greeting !== undefined) return done(answer(greeting));
      done();
    },
    onAuth(auth, _session, done) {
      if (auth.username === user && auth.password === password) done(null, { user: auth.username });
      else done(answer(535));
    },
    onRcptTo(address, _session, done) {
      const code = state.faults.rcpt?.(address.address);
      done(code === undefined ? null : answer(code));
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        const { data } = state.faults;
        if (data === 'hang') return;
        if (data !== undefined) return done(answer(data));
        const raw = Buffer.concat(chunks).toString('utf8');
        const { mailFrom, rcptTo } = session.envelope;
        mails.push({
          from: mailFrom === false ? '' : mailFrom.address,
          to: rcptTo.map(({ address }) => address),
          raw,
          subject: words(/^Subject: ((?:.*\r\n[ \t])*.*)\r\n/m.exec(raw)?.[1] ?? ''),
          text: part(raw, 'text/plain'),
          html: part(raw, 'text/html'),
          secure: session.secure,
          user: session.user,
        });
        done();
      });
    },
  });
  // A client that hangs up in the middle is what some tests are about.
  server.on('error', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const { port } = server.server.address() as AddressInfo;
  return Object.assign(state, { port, close: () => new Promise<void>((resolve) => server.close(() => resolve())) });
}

/** A header's encoded words (RFC 2047) as text. */
const words = (header: string): string =>
  header
    .replaceAll(/\r\n[ \t]/g, ' ')
    .replaceAll(/\?=\s+=\?/g, '?==?')
    .replaceAll(/=\?utf-8\?([bq])\?([^?]*)\?=/gi, (_, how: string, text: string) =>
      how.toLowerCase() === 'b' ? Buffer.from(text, 'base64').toString('utf8') : printable(text.replaceAll('_', ' ')),
    );

/** Quoted-printable (RFC 2045) as text. */
const printable = (text: string): string =>
  Buffer.from(
    text.replaceAll(/=\r?\n/g, '').replaceAll(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  ).toString('utf8');

/** The part of this type, decoded. */
function part(raw: string, type: string): string {
  const found = raw.split(/\r\n--[^\r\n]+/).find((one) => new RegExp(`content-type: ${type}`, 'i').test(one)) ?? '';
  const [head = '', ...body] = found.split('\r\n\r\n');
  const text = body.join('\r\n\r\n');
  if (/encoding: base64/i.test(head)) return Buffer.from(text, 'base64').toString('utf8');
  return (/encoding: quoted-printable/i.test(head) ? printable(text) : text).replaceAll('\r\n', '\n');
}

export interface Call {
  readonly at: number;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Receiver {
  readonly url: string;
  readonly port: number;
  readonly calls: Call[];
  /** What the next calls are answered; 204 unless set. `hang`: no answer at all. */
  answer: (call: Call, nth: number) => number | 'hang' | { status: number; headers: Record<string, string> };
  close(): Promise<void>;
}

/** Starts a receiver of webhooks; with a certificate it speaks https. */
export async function startReceiver(certificate?: TestCertificate): Promise<Receiver> {
  const calls: Call[] = [];
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const call = { at: Date.now(), path: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString('utf8') };
      calls.push(call);
      const said = receiver.answer(call, calls.length);
      if (said === 'hang') return;
      response.writeHead(typeof said === 'number' ? said : said.status, typeof said === 'number' ? {} : said.headers).end('a body that nobody reads');
    });
  };
  const server = certificate ? createTlsServer(certificate, listener) : createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const receiver: Receiver = {
    url: `${certificate ? 'https' : 'http'}://127.0.0.1:${port}/hook`,
    port,
    calls,
    answer: () => 204,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return receiver;
}

/** Mail, through the operator's own SMTP server. One message to one address; text first, the same in simple HTML. */
import { createTransport } from 'nodemailer';
import { readSecret } from '../config/secrets.ts';
import type { EmailConfig } from '../config/tell.ts';
import { visibleLine } from '../domain/hidden-text.ts';
import { type Channel, type Delivery, DeliveryFault, type Story } from './channel.ts';
import { facts, headline, nextStep } from './words.ts';

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => escapes[character] ?? character);

/** The message for one delivery, as it is handed to the mail library. */
export function mailOf(delivery: Delivery, story: Story, from: string) {
  const told = facts(story);
  const wide = Math.max(...told.map(({ label }) => label.length));
  const indent = ' '.repeat(wide + 2);
  const text = [
    headline(story),
    '',
    ...told.map(({ label, value }) => `${label.padEnd(wide)}  ${value.replaceAll('\n', `\n${indent}`)}`),
    '',
    nextStep(story),
    story.url,
    '',
    '-- ',
    'Halligan. This message holds no secret and asks for none.',
  ].join('\n');
  const rows = told
    .map(
      ({ label, value }) => `<tr><th align="left" valign="top">${escaped(label)}</th><td><bdi style="white-space:pre-wrap">${escaped(value)}</bdi></td></tr>`,
    )
    .join('\n');
  const page = `<!doctype html><html lang="en"><body><p><strong><bdi>${escaped(headline(story))}</bdi></strong></p><table cellpadding="4">${rows}</table><p>${escaped(nextStep(story))}<br><a href="${escaped(story.url)}">${escaped(story.url)}</a></p></body></html>`;
  const subject = visibleLine(headline(story));
  const host = new URL(story.url).hostname;
  return {
    from,
    to: delivery.address,
    subject: subject.length > 180 ? `${subject.slice(0, 179)}…` : subject,
    text,
    html: page,
    // The same message sent twice bears the same id, so that mail servers and readers can tell.
    messageId: `<${delivery.id}@${host}>`,
    headers: {
      'Auto-Submitted': 'auto-generated',
      'List-Id': `Halligan <halligan.${host}>`,
      'X-Halligan-Request': story.request.id,
      References: `<${story.request.id}@${host}>`,
    },
    disableFileAccess: true,
    disableUrlAccess: true,
  };
}

/** The channel for mail. A refusal with a 5xx code is final for that message; anything else is tried again. */
export function emailChannel(config: EmailConfig): Channel {
  /** A connection for each message, so that a rotated password is picked up and a server that hangs holds nothing. */
  const transport = async () =>
    createTransport({
      host: config.host,
      port: config.port,
      secure: config.tls === 'implicit',
      requireTLS: config.tls === 'starttls',
      ignoreTLS: config.tls === 'none',
      ...(config.user === undefined || config.password === undefined ? {} : { auth: { user: config.user, pass: await readSecret(config.password) } }),
      connectionTimeout: 8_000,
      greetingTimeout: 8_000,
      socketTimeout: 9_000,
      disableFileAccess: true,
      disableUrlAccess: true,
    });
  return {
    name: 'email',
    async send(delivery, story, signal) {
      const opened = await transport().catch(asFault);
      const late = new Promise<never>((_, reject) =>
        signal.addEventListener('abort', () => reject(new DeliveryFault('the mail server did not answer in time')), { once: true }),
      );
      try {
        await Promise.race([opened.sendMail(mailOf(delivery, story, config.from)), late]);
        return {};
      } catch (error) {
        return asFault(error);
      } finally {
        opened.close();
      }
    },
  };
}

/** The server's words are not repeated: they may hold anything. Its codes are enough. */
function asFault(error: unknown): never {
  if (error instanceof DeliveryFault) throw error;
  const { code, responseCode, command } = (error ?? {}) as { code?: string; responseCode?: number; command?: string };
  if (code === 'EAUTH') throw new DeliveryFault('the mail server refused our login');
  if (code === 'ETLS') throw new DeliveryFault('the mail server does not offer TLS that can be trusted');
  if (responseCode !== undefined) {
    // Refused for good is the address or the message; a refusal at the greeting is the server's own trouble.
    const final = responseCode >= 500 && (command === 'RCPT TO' || command === 'DATA');
    throw new DeliveryFault(`the mail server answered ${responseCode}${command ? ` to ${command}` : ''}`, { final });
  }
  const reasons: Record<string, string> = {
    ECONNECTION: 'could not be reached',
    ESOCKET: 'could not be reached',
    ETIMEDOUT: 'did not answer in time',
    EDNS: 'has no address',
  };
  throw new DeliveryFault(
    `the mail server ${reasons[code ?? ''] ?? 'could not be used'}${error instanceof Error && code === undefined ? `: ${error.message}` : ''}`,
  );
}

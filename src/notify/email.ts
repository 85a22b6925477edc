/** Mail, through the operator's own SMTP server. One message to one address; text first, the same in simple HTML. */
import { createTransport, type SendMailOptions } from 'nodemailer';
import { readSecret, type SecretRef } from '../config/secrets.ts';
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
  const block = (value: string): string => escaped(value).replaceAll('\n', '<br>');
  const rows = told.map(({ label, value }) => `<tr><th align="left" valign="top">${escaped(label)}</th><td valign="top"><bdi>${block(value)}</bdi></td></tr>`);
  // The address may break before the id, for narrow screens.
  const link = `<a href="${escaped(story.url)}">${escaped(story.url).replace('/req_', '/<wbr>req_')}</a>`;
  const page = `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"></head><body>
<p><strong><bdi>${escaped(headline(story))}</bdi></strong></p>
<table cellpadding="4">
${rows.join('\n')}
</table>
<p>${escaped(nextStep(story))}<br>${link}</p></body></html>`;
  const subject = visibleLine(headline(story));
  const host = new URL(story.url).hostname;
  return {
    from,
    // The parsed form: what stands in an address is never read as a list of addresses.
    to: { name: '', address: delivery.address },
    envelope: { from, to: [delivery.address] },
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

/** What an address may be made of; what comes from elsewhere is held against it once more. */
const isAddress = (text: string): boolean => /^[^\s\u0000-\u0020\u007f-\u009f@<>,;:"()[\]\\]{1,64}@[A-Za-z0-9.-]{1,190}$/.test(text);

/** The channel for mail. A refusal of the address or the message with a 5xx code is final; anything else is tried again. */
export function emailChannel(config: EmailConfig): Channel {
  /** A connection for each message, so that a rotated password is picked up and a server that hangs holds nothing. */
  const transport = async () =>
    createTransport({
      host: config.host,
      port: config.port,
      secure: config.tls === 'implicit',
      requireTLS: config.tls === 'starttls',
      ignoreTLS: config.tls === 'none',
      ...(config.user === undefined || config.password === undefined ? {} : { auth: { user: config.user, pass: await passwordOf(config.password) } }),
      dnsTimeout: 8_000,
      connectionTimeout: 8_000,
      greetingTimeout: 8_000,
      socketTimeout: 9_000,
      disableFileAccess: true,
      disableUrlAccess: true,
    });
  return {
    name: 'email',
    async send(delivery, story, signal) {
      if (!isAddress(delivery.address)) throw new DeliveryFault('is not a mail address that can be used', { final: true });
      const opened = await transport().catch(asFault);
      try {
        // The signal closes the connection.
        await opened.sendMail({ ...mailOf(delivery, story, config.from), signal } as SendMailOptions);
        return {};
      } catch (error) {
        return asFault(error);
      } finally {
        opened.close();
      }
    },
    async check(signal) {
      const place = `${config.host}:${config.port}`;
      try {
        // In its own words, which name the file or the variable.
        if (config.password) await readSecret(config.password);
        const opened = await transport().catch(asFault);
        const late = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject({ code: 'EABORT' }), { once: true }));
        await Promise.race([opened.verify(), late])
          .catch(asFault)
          .finally(() => opened.close());
        return [];
      } catch (error) {
        return [{ place, message: (error as Error).message, next: 'Compare the email block of the config with what the mail server asks for.' }];
      }
    },
  };
}

const passwordOf = (ref: SecretRef): Promise<string> =>
  readSecret(ref).catch(() => {
    throw new DeliveryFault('the password for the mail server cannot be read');
  });

/** The server's words are not repeated: they may hold anything. Its codes are enough. */
function asFault(error: unknown): never {
  if (error instanceof DeliveryFault) throw error;
  const { code, responseCode, command } = (error ?? {}) as { code?: string; responseCode?: number; command?: string };
  if (code === 'EAUTH') throw new DeliveryFault('the mail server refused our login');
  // The library keeps no more of a certificate that was refused than the words.
  const untrusted = code === 'ESOCKET' && error instanceof Error && /certificate|self-signed|altnames|SSL routines|TLS/i.test(error.message);
  if (code === 'ETLS' || untrusted) throw new DeliveryFault('the mail server does not offer TLS that can be trusted');
  if (responseCode !== undefined) {
    // Refused for good is the address or the message; a refusal at the greeting is the server's own trouble.
    const aboutThisOne = command === 'RCPT TO' || command === 'DATA';
    // 421 ends the whole session, whatever it was the answer to.
    const placeOnly = aboutThisOne && responseCode !== 421;
    throw new DeliveryFault(`the mail server answered ${responseCode}${command ? ` to ${command}` : ''}`, {
      final: responseCode >= 500 && placeOnly,
      placeOnly,
    });
  }
  const reasons: Record<string, string> = {
    ECONNECTION: 'could not be reached',
    ESOCKET: 'could not be reached',
    ETIMEDOUT: 'did not answer in time',
    EABORT: 'did not answer in time',
    EDNS: 'has no address',
  };
  throw new DeliveryFault(
    `the mail server ${reasons[code ?? ''] ?? 'could not be used'}${error instanceof Error && code === undefined ? `: ${error.message}` : ''}`,
  );
}

/** An error as a page: what happened, and where to go on. */
import type { Response } from 'express';
import type { Refusal } from '../domain/errors.ts';
import { html } from './html.ts';
import { page } from './layout.ts';

const headings: Record<number, string> = {
  401: 'You are not logged in',
  403: 'That is not allowed',
  404: 'There is nothing here',
  405: 'That cannot be done here',
  429: 'That was too much at once',
  503: 'Halligan cannot answer now',
};

/** A login can be refused to somebody who goes on being logged in by an earlier one. */
const headingOf = ({ code }: Refusal, status: number): string =>
  code === 'login_refused' ? 'That login was not accepted' : (headings[status] ?? 'It did not work');

export function sendErrorPage(response: Response, refusal: Refusal, status: number): void {
  response.setHeader('Cache-Control', 'no-store');
  response
    .status(status)
    .type('html')
    .send(
      page({
        title: headingOf(refusal, status),
        heading: headingOf(refusal, status),
        sub: refusal.message,
        body: html`${refusal.next ? html`<p>${refusal.next}</p>` : ''}<p class="actions">${status === 401 ? html`<a class="btn first" href="/login">Log in</a>` : html`<a class="btn" href="/">Back to what is open</a>`}</p><p class="soft">Code: <code>${refusal.code}</code></p>`,
      }),
    );
}

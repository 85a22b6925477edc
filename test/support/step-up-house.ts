/** A test house whose entitlements ask for fresh and strong logins, and ways to make a login or its groups old. */
import { secondFactor } from '../../src/demo/identity-provider.ts';
import { type House, type HouseOptions, startTestHouse } from './house.ts';
import type { TestTarget } from './postgres.ts';

const entitlement = (name: string, role: string, more: string): string => `
  ${name}:
    opens: read the orders database
    target: orders-db
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h
    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 15m }
    review: { of: { groups: [reviewers] } }
    ${more}`;

/** `orders-plain` asks for nothing, `orders-fresh` for ten minutes, `orders-strong` for a second factor; the others say what Slack may do. */
const entitlements = ({ groupRole }: TestTarget): string =>
  [
    ['orders-plain', ''],
    ['orders-fresh', 'stepUp: { maxAge: 10m }'],
    ['orders-strong', `stepUp: { maxAge: 10m, acr: '${secondFactor}' }`],
    ['slack-allow', 'slackDecision: allow'],
    ['slack-step-up', 'slackDecision: allow-with-step-up'],
    ['slack-allow-fresh', '{ slackDecision: allow, stepUp: { maxAge: 10m } }'],
  ]
    .map(([name = '', more = '']) => entitlement(name, groupRole, more.startsWith('{') ? 'slackDecision: allow\n    stepUp: { maxAge: 10m }' : more))
    .join('');

export const startStepUpHouse = (options: HouseOptions = {}): Promise<House> => startTestHouse({ ...options, entitlements });

/** Makes every login of this person so many seconds old, by Postgres' clock. */
export async function loginsAre(house: House, subject: string, secondsOld: number): Promise<void> {
  const { superuser } = house.database;
  await superuser.query(`UPDATE token SET auth_at = now() - $2 * interval '1 s' FROM person p WHERE p.id = person_id AND subject = $1`, [subject, secondsOld]);
  await superuser.query(
    `UPDATE session SET data = data || jsonb_build_object('authAt', to_char((now() - $2 * interval '1 s') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
       FROM person p WHERE p.id = person_id AND subject = $1`,
    [subject, secondsOld],
  );
}

/** Makes this person's groups read so many seconds ago. */
export const groupsAre = async (house: House, subject: string, secondsOld: number): Promise<void> =>
  void (await house.database.superuser.query(`UPDATE person SET groups_read_at = now() - $2 * interval '1 s' WHERE subject = $1`, [subject, secondsOld]));

/** The codes of the refusals that are witnessed about a request, or by a person, oldest first. */
export async function refusalsOf(house: House, type: string, of: { request: string } | { person: string }): Promise<string[]> {
  const [where, value] = 'request' in of ? ['request_id = $2', of.request] : ['actor_id = (SELECT id FROM person WHERE subject = $2)', of.person];
  const { rows } = await house.database.superuser.query<{ code: string }>(
    `SELECT line::jsonb #>> '{data,code}' AS code FROM audit_event WHERE type = $1 AND ${where} ORDER BY position`,
    [type, value],
  );
  return rows.map(({ code }) => code);
}

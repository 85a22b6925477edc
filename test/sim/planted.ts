/**
 * Bugs that the simulation must find: each changes the real code as it is loaded, or the model, in one place, and names the
 * invariants whose checker may be the one that notices. A text that is no longer in the code fails the run: a planted bug
 * that is not planted proves nothing.
 */

export interface Edit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export interface Plant {
  readonly name: string;
  /** What somebody could have got wrong. */
  readonly bug: string;
  readonly finds: readonly string[];
  /** What it breaks as well; a seed that shows this first is passed over. */
  readonly also?: readonly string[];
  readonly edits?: readonly Edit[];
  readonly model?: 'believes-2xx' | 'sweeps-foreign' | 'alias-is-a-person';
  /** Rules of the database that hold the same door and are taken away with it. */
  readonly without?: readonly string[];
  /** So many seeds must be enough. */
  readonly within?: number;
}

const edit = (file: string, from: string, to: string): Edit => ({ file: `src/${file}.ts`, from, to });

export const plants: readonly Plant[] = [
  {
    name: 'end-later',
    bug: 'the target is told an end ten minutes after the grant’s',
    finds: ['1'],
    edits: [edit('commands/claim-rules', 'endsAt: intent.grant.ends_at,', 'endsAt: new Date(intent.grant.ends_at.getTime() + 600_000),')],
  },
  {
    name: 'slow-sweep',
    bug: 'the sweep comes every two minutes, and a lost job waits for it',
    finds: ['2'],
    edits: [edit('workers/start-workers', 'sweepEveryMs = 2_000', 'sweepEveryMs = 120_000')],
  },
  {
    name: 'said-end',
    bug: 'the end that a target says is shown although the grant ends before',
    finds: ['3'],
    edits: [edit('commands/claim-rules', 'issued.expiresAt < grant.ends_at ? issued.expiresAt : grant.ends_at', 'issued.expiresAt')],
  },
  {
    name: 'other-name',
    bug: 'the object is made under another name than the committed one',
    finds: ['4'],
    edits: [
      edit('commands/claim-lease', 'return { ...intent, leaseId, externalName };', 'return { ...intent, leaseId, externalName: externalName.concat("x") };'),
    ],
  },
  { name: 'believes-2xx', bug: 'a target’s yes is believed without reading back', finds: ['5'], model: 'believes-2xx' },
  {
    name: 'gone-too-soon',
    bug: 'a lease whose claim may still make something is believed gone',
    finds: ['5'],
    edits: [edit('commands/record-revocation', '(lease.revealed_at || result.askedAt >= settlesAt)', '(lease.revealed_at || tx.now)')],
  },
  {
    name: 'cut-is-gone',
    bug: 'a login that is only cut, because others wait, counts as gone',
    finds: ['5'],
    edits: [
      edit(
        'workers/revoke-lease',
        'if (cut) return { cut };',
        'if (cut) return { gone: { cutAt: cut.at, sessionsCut: cut.sessionsCut, notes: [] }, askedAt: how.askedAt };',
      ),
    ],
  },
  {
    name: 'deadline-after-commit',
    bug: 'a claim’s time begins when its intent is committed, and one that slept asks the target all the same',
    finds: ['5'],
    edits: [
      edit('commands/claim-rules', 'Math.max(1, Math.floor(issueDeadlineMs - (performance.now() - began)))', 'issueDeadlineMs'),
      edit('commands/claim-rules', 'if (performance.now() - began >= issueDeadlineMs)', 'if (began < 0)'),
    ],
    within: 3_000,
  },
  {
    name: 'gives-up',
    bug: 'after two tries the next is tomorrow',
    finds: ['6'],
    also: ['2'],
    edits: [
      edit('commands/record-revocation', 'Math.min(300_000, Math.max(1_000, wished))', '(tries > 2 ? 86_400_000 : Math.min(300_000, Math.max(1_000, wished)))'),
    ],
  },
  {
    name: 'ends-others',
    bug: 'the leases of every grant are taken for those of one',
    finds: ['6'],
    edits: [
      edit('db/stores/open-leases', ".where('grant_id', 'in', grantIds)", ''),
      edit('commands/end-lease', 'open.get(grant.id) ?? []', '[...open.values()].flat()'),
    ],
  },
  { name: 'sweeps-foreign', bug: 'reconcile adopts what lacks the marker', finds: ['6'], model: 'sweeps-foreign' },
  {
    name: 'reconcile-ends-live',
    bug: 'reconcile does not look at the row of what a target holds',
    finds: ['6'],
    edits: [edit('workers/reconcile-leases', 'if (open.has(ref.externalName)) continue;', '')],
  },
  {
    name: 'sweep-forgets-revoking',
    bug: 'the sweep does not see leases that are `revoking`',
    finds: ['6'],
    also: ['2'],
    edits: [edit('workers/revoke-lease', '.limit(20_000)', '.limit(0)')],
  },
  {
    name: 'cut-forgotten',
    bug: 'a cut is not written down when clean-up fails after it',
    finds: ['7'],
    edits: [edit('commands/record-revocation', ': result.failed.cut;', ': undefined;')],
  },
  {
    name: 'no-due-sweep',
    bug: 'what the queue lost is not found again',
    finds: ['8', '2'],
    edits: [edit('workers/expire-grants', '.limit(batch * 20)', '.limit(0)')],
  },
  {
    name: 'job-believed',
    bug: 'a job ends a grant whatever the clock says',
    finds: ['8'],
    edits: [
      edit(
        'domain/lifecycle',
        "(now >= facts.endsAt ? goes('ending', 'grant.expired', 'end-leases') : no('conflict'))",
        "(now ? goes('ending', 'grant.expired', 'end-leases') : no('conflict'))",
      ),
    ],
  },
  {
    name: 'reveal-blind',
    bug: 'a lease is revealed without a look at its state',
    finds: ['9'],
    edits: [
      edit('commands/claim-lease', "transition(leaseMachine, lease.state, 'issued', {}, tx.now)", "transition(leaseMachine, 'issuing', 'issued', {}, tx.now)"),
    ],
    without: ['lease_revoking_has_next_try', 'lease_end_has_reason', 'lease_gone_is_read_back', 'lease_one_live_per_entitlement'],
  },
  {
    name: 'reveal-late',
    bug: 'a claim is not judged against the grant’s end',
    finds: ['9'],
    edits: [edit('commands/claim-rules', "grant?.state === 'active' && now < grant.ends_at) return;", "grant?.state === 'active') return;")],
  },
  {
    name: 'stale-result',
    bug: 'a worker that slept writes its result over a newer one',
    finds: ['9'],
    edits: [
      edit('commands/record-revocation', "|| lease.state !== 'revoking' || lease.epoch !== epoch) continue;", ') continue;'),
      edit(
        'commands/record-revocation',
        '[...open.values()].flat().map((lease) => [lease.id, lease])',
        "(await tx.sql.selectFrom('lease').selectAll().where('id', 'in', leaseIds).forUpdate().execute()).map((lease) => [lease.id, lease])",
      ),
    ],
    without: ['lease_gone_is_read_back', 'lease_end_has_reason', 'lease_revoking_has_next_try'],
  },
  {
    name: 'epoch-kept',
    bug: 'a move leaves the epoch as it was',
    finds: ['9'],
    edits: [edit('db/stores/move', 'epoch = t.epoch + 1', 'epoch = t.epoch')],
  },
  {
    name: 'process-clock',
    bug: 'the end is computed from the clock of the process',
    finds: ['11'],
    edits: [edit('commands/open-grant', '? request.start_at : tx.now;', '? request.start_at : new Date();')],
    without: ['grant_ends_after_it_starts'],
  },
  { name: 'alias-is-a-person', bug: 'the requester counts as somebody else under an alias', finds: ['13'], also: ['14'], model: 'alias-is-a-person' },
  {
    name: 'own-approval',
    bug: 'the requester’s own approval counts',
    finds: ['13'],
    edits: [
      edit('commands/decide-request', 'if (member.id === requesterId) {', "if (member.id === '') {"),
      edit('domain/policy', '(approver) => approver.id !== requesterId', "(approver) => approver.id !== ''"),
    ],
    without: ['decision_never_by_requester'],
  },
  {
    name: 'quorum-twice',
    bug: 'the quorum counts one person twice',
    finds: ['14'],
    edits: [
      edit(
        'commands/decide-request',
        '...(await approversOf(tx.sql, requestId)), member]',
        '...(await approversOf(tx.sql, requestId)), member, { ...member, id: member.id.concat(" again") }]',
      ),
    ],
  },
  {
    name: 'decided-twice',
    bug: 'a request that was decided is decided again',
    finds: ['14'],
    edits: [
      edit('commands/decide-request', 'transition(requestMachine, request.state, input.decision', "transition(requestMachine, 'pending', input.decision"),
    ],
    without: ['grant_once_per_request'],
  },
  {
    name: 'decided-late',
    bug: 'a request can be approved after its time, until a sweep marks it',
    finds: ['14'],
    edits: [edit('domain/lifecycle', "if (now >= facts.lapsesAt) return no('request_lapsed');", '')],
  },
  {
    name: 'seen-unchecked',
    bug: 'what the approver was shown is not compared',
    finds: ['15'],
    edits: [edit('commands/decide-request', "request.state === 'pending' && input.seen !==", "request.state === 'none' && input.seen !==")],
  },
  {
    name: 'holder-not-judged-again',
    bug: 'who left the group can still claim',
    finds: ['16'],
    edits: [edit('commands/claim-rules', 'if (!current.every((entitlement) => may(entitlement, holder)))', 'if (!may)')],
  },
  {
    name: 'approvals-not-judged-again',
    bug: 'approvals of people who are approvers no more still carry a claim',
    finds: ['16'],
    edits: [edit('commands/claim-rules', 'if (!request.break_glass) {', 'if (!holder) {')],
  },
  {
    name: 'no-review',
    bug: 'a break-glass for an incident owes no review',
    finds: ['17'],
    edits: [edit('commands/open-grant', 'if (request.break_glass) {', 'if (request.break_glass && !request.incident) {')],
  },
  {
    name: 'witness-apart',
    bug: 'events are written in a transaction of their own',
    finds: ['19'],
    edits: [
      edit('commands/commit', 'await writeDown(trx, now, events, messages,', 'if (now.getTime() < 0) await writeDown(trx, now, events, messages,'),
      edit(
        'commands/commit',
        "  ctx.observe?.({ what: 'events', events });",
        '  await ctx.db.transaction().execute((other) => writeDown(other, new Date(), events, messages, []));',
      ),
    ],
  },
  {
    name: 'unwitnessed',
    bug: 'a lease that is replaced ends without an event',
    finds: ['19'],
    edits: [
      edit(
        'commands/end-lease',
        'tx.witness({ ...aboutLease(lease, grant), type: outcome.auditEvent',
        "if (reason !== 'replaced') tx.witness({ ...aboutLease(lease, grant), type: outcome.auditEvent",
      ),
    ],
  },
  {
    name: 'witnessed-twice',
    bug: 'an event is written twice',
    finds: ['19'],
    edits: [
      edit(
        'commands/end-grant',
        'const open = grants.filter(',
        "for (const grant of grants) tx.witness({ type: 'grant.expired', grant: grant.id });\n    const open = grants.filter(",
      ),
    ],
  },
  {
    name: 'shown-before-committed',
    bug: 'the credential is shown while the reveal is being committed',
    finds: ['19'],
    edits: [
      edit(
        'commands/claim-lease',
        'await commit(ctx, actor, (tx) => reveal(tx, intent, issued), refused);',
        'void commit(ctx, actor, (tx) => reveal(tx, intent, issued), refused).catch(() => undefined);',
      ),
    ],
  },
  {
    name: 'stranger-claims',
    bug: 'anybody can claim under a grant',
    finds: ['23'],
    edits: [edit('commands/claim-lease', 'if (!locked || locked.person_id !== actor.id)', 'if (!locked)')],
  },
  {
    name: 'not-replaced',
    bug: 'a new claim leaves the earlier lease open',
    finds: ['23'],
    edits: [edit('commands/claim-lease', "for (const lease of earlier) await endLease(tx, lease, grant, 'replaced');", '')],
    without: ['lease_one_live_per_entitlement'],
  },
];

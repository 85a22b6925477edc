/**
 * The steps between two side effects, by name. A process can die, be stopped, throw or hang at each of them, and the fault
 * suite (`npm run test:faults`) makes it do so at every one; in service they do nothing. Pure but for one variable, which
 * only tests set: no file of `src/` may call `armFailpoint`, and a test sees to it.
 */

/** Each step: what has just happened; what comes next. This is the only list; the suite fails at a step that it never reached. */
export const failpoints = {
  'commit.before': 'all rows, events and messages of a command are written in its transaction; COMMIT comes next',
  'commit.done': 'a command is committed; nobody has been told, and its caller has no answer',

  'claim.intended': 'the intent of a claim is committed; the target has not been asked',
  'claim.made': 'the target has made the credential; nothing of it is recorded',
  'claim.revealed': 'the reveal is committed; the answer has not been sent',
  'claim.undoing': 'the target failed to make the credential; the lease is still being issued',
  'again.intended': 'one more credential of a live lease is witnessed; the target has not been asked',
  'again.made': 'the target has made one more credential; nothing of it is recorded',
  'again.shown': 'one more reveal is committed; the answer has not been sent',

  'relay.enqueued': 'the jobs of a batch are on the queue; their messages are still in the outbox',
  'relay.deleted': 'the messages of a batch are deleted; COMMIT comes next',
  'queue.put': 'Redis has taken a job; whoever put it there does not know yet',
  'queue.taken': 'Redis has given a job to this process; its handler has not begun',
  'queue.ran': "a job's handler has ended; Redis still counts the job as running",

  'expire.queued': 'the grants that are nearly over are on the queue; nothing else was swept',
  'expire.ended': 'a grant that was over is ended in the rows; nothing has been cut at its targets',
  'revoke.asked': 'a lease to be ended was read; the target has not been asked',
  'revoke.gone': 'the target says that a lease is gone; nothing of it is recorded',
  'revoke.recorded': 'what became of a lease is committed; the job still counts as running',
  'reconcile.unfinished': 'a claim that was cut short is being ended; no target has been compared',
  'reconcile.revoked': 'an object that no lease explained is ended at its target; only that it was found has a witness',

  'seal.signed': 'a checkpoint is signed; nothing of its batch is committed',
  'seal.committed': 'a checkpoint is committed; nothing of it is published',
  'seal.appended': 'a checkpoint is appended to checkpoints.jsonl; `latest` still names the one before',
  'seal.published': 'a checkpoint is published; the lock on publishing is still held',

  'notify.taken': 'a message is marked as being sent; its channel has not been called',
  'notify.sent': 'a message is out; that is not recorded',

  'postgres.made': 'the login is made in a transaction at the target; COMMIT comes next',
  'postgres.disabled': 'new logins are refused, committed at the target; open sessions go on',
  'postgres.terminated': 'open sessions are cut; what the holder left is still there',
  'postgres.cleaned': 'what the holder left is tidied up in every database; the role is still there',
  'postgres.dropped': 'the role is dropped; it has not been read back as gone',

  'vault.token-made': 'Vault has made the token of a lease; its accessor is written nowhere',
  'vault.indexed': "the token's accessor is in the index; the database user does not exist",
  'vault.user-made': "the database user exists; its own end is not drawn to the grant's, and its name is written nowhere",
  'vault.settled': "the user's end is set, written down and read back; the claim does not know",
  'vault.user-dropped': 'the database user is dropped; the token of the lease still lives',
  'vault.token-ended': 'the token of the lease is ended; nothing has been read back',
  'vault.read-back': 'the lease is read back as gone; the index still names it',
  'vault.forgotten': 'the index names the lease no more; the caller does not know',

  'aws.assumed': 'AWS has given the session; nothing of it is recorded',
  'aws.denied': 'the denial of a session is written on its role; it has not been read back',

  'kubernetes.account-made': 'the service account exists; it has no Secret and no rights',
  'kubernetes.secret-made': 'the Secret exists; there is no token, and no rights',
  'kubernetes.token-made': 'the token exists; there are no rights',
  'kubernetes.bound': 'the binding exists; nothing of it is recorded',
  'kubernetes.unbound': 'the bindings are removed; the Secret and the service account are still there',
  'kubernetes.secret-removed': 'the Secret is removed; the service account is still there',
  'kubernetes.removed': 'everything of the lease is removed; nothing has been read back',
} as const satisfies Record<`${string}.${string}`, string>;

export type Failpoint = keyof typeof failpoints;
export type FailpointHook = (name: Failpoint) => void | Promise<void>;

let hook: FailpointHook | undefined;

/** Marks a step: `await failpoint('claim.made')`. Nothing happens unless a test has armed one; then whatever it does happens here, throwing included. */
export const failpoint = (name: Failpoint): void | Promise<void> => hook?.(name);

/** For tests alone: `given` is called at every step from now on. Without it nothing is called any more. */
export function armFailpoint(given: FailpointHook | undefined): void {
  hook = given;
}

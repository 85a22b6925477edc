/** The promises that the simulation judges, by their numbers. */

/** What each invariant says, in a few words, for those who read a failure. */
export const invariants: Readonly<Record<string, string>> = {
  '1': 'nothing new works at a target after the grant’s end, with Halligan dead',
  '2': 'with Halligan alive, open sessions are cut within 60 s',
  '3': 'no credential is shown to last longer than its grant',
  '4': 'nothing outside without a committed intent',
  '5': 'what targets hold is in rows not yet revoked; revoked is read back',
  '6': 'revocation never gives up and touches nothing else',
  '7': 'a cut is written down although clean-up failed',
  '8': 'the queue is not needed, and not believed',
  '9': 'early revocation wins; nothing moves back',
  '11': 'one clock',
  '13': 'never by the requester',
  '14': 'one outcome, a quorum of different people, in time',
  '15': 'what was seen is what is granted',
  '16': 'judged again when it is issued',
  '17': 'a break-glass owes a review',
  '19': 'one change, one event, one transaction; shown after that',
  '23': 'to its owner only, one at a time',
  unforeseen: 'nothing fails in a way that nobody foresaw',
};

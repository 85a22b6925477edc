/**
 * Loaded before the server (`node --import`): its wall clock is wrong by HALLIGAN_TEST_CLOCK_SHIFT_MS, and is set ten minutes
 * back at SIGUSR2. Timers and the steady clock stay right, as on a real machine.
 */
let shift = Number(process.env['HALLIGAN_TEST_CLOCK_SHIFT_MS'] ?? 0);
const RealDate = Date;
globalThis.Date = class Shifted extends RealDate {
  constructor(...given) {
    if (given.length === 0) super(RealDate.now() + shift);
    else super(...given);
  }
  static now() {
    return RealDate.now() + shift;
  }
};
process.on('SIGUSR2', () => {
  shift -= 600_000;
  console.log('stepped');
});

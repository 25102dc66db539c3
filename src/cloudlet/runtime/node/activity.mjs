// The activity page: lets the node see from outside when the running invocation is over its time (contract, section 5).

import { writeSync } from 'node:fs';
import { performance } from 'node:perf_hooks';

const PAGE = 5;
/** The page may show a deadline this much earlier than the true one: half of what the node adds before it acts. */
const EARLY_MS_MAX = 50;
/** What changed is on the page after this time, if the event loop is free. */
const LATE_MS_MAX = 20;
const NS_PER_MS = 1e6;
const TWO_32 = 4294967296;

// performance.now() and hrtime() read the same clock, CLOCK_MONOTONIC, from different origins. Numbers keep whole
// nanoseconds for 104 days of uptime and microseconds for 280 years, and need no BigInt for each call.
const originMs = Number(process.hrtime.bigint()) / NS_PER_MS - performance.now();

/** Milliseconds of CLOCK_MONOTONIC. */
export function monotonicMs() {
  return originMs + performance.now();
}

/**
 * Publishes the earliest deadline and the number of invocations started. Short calls that follow each other do not
 * write: the deadline of one of them serves for its successors until it is too far off.
 */
export class ActivityPage {
  constructor(fd = PAGE) {
    this.fd = fd;
    this.started = 0;
    this.shownMs = 0;
    this.written = 0;
    this.timer = undefined;
    this.page = Buffer.alloc(16);
  }

  /**
   * An invocation started or ended.
   * @param {() => number} earliest deadline in ms of what runs; 0 = nothing runs. Asked again when it is written late.
   */
  changed(earliest) {
    const deadlineMs = earliest();
    if (deadlineMs !== 0) {
      const earlyMs = deadlineMs - this.shownMs;
      if (this.shownMs === 0 || earlyMs < 0 || earlyMs > EARLY_MS_MAX) return this.publish(deadlineMs);
    }
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.publish(earliest());
    }, LATE_MS_MAX);
  }

  /** @param {number} deadlineMs shown at once; 0 = nothing runs */
  publish(deadlineMs) {
    if (deadlineMs === this.shownMs && this.started === this.written) return;
    this.shownMs = deadlineMs;
    this.written = this.started;
    const ns = Math.round(deadlineMs * NS_PER_MS);
    const page = this.page;
    page.writeUInt32LE(ns % TWO_32, 0);
    page.writeUInt32LE(Math.floor(ns / TWO_32), 4);
    page.writeUInt32LE(this.started % TWO_32, 8);
    page.writeUInt32LE(Math.floor(this.started / TWO_32), 12);
    writeSync(this.fd, page, 0, 16, 0);
  }
}

/** For the rehearsal: counts nothing that anybody can see. */
export class NoActivity {
  started = 0;

  changed() {}

  publish() {}
}

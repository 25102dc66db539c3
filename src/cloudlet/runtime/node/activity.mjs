// The activity page: lets the node see from outside when the running invocation is over its time (contract, section 5).

import { writeSync } from 'node:fs';
import { performance } from 'node:perf_hooks';

const PAGE = 5;
const NS_PER_MS = 1e6;
const TWO_32 = 4294967296;

// performance.now() and hrtime() read the same clock, CLOCK_MONOTONIC, from different origins. Numbers keep whole
// nanoseconds for 104 days of uptime and microseconds for 280 years, and need no BigInt for each call.
const originMs = Number(process.hrtime.bigint()) / NS_PER_MS - performance.now();

/** Milliseconds of CLOCK_MONOTONIC. */
export function monotonicMs() {
  return originMs + performance.now();
}

/** Publishes the earliest deadline and the number of invocations started. */
export class ActivityPage {
  constructor(fd = PAGE) {
    this.fd = fd;
    this.started = 0;
    this.page = Buffer.alloc(16);
  }

  /** @param {number} deadlineMs of the earliest running invocation; 0 = nothing runs */
  publish(deadlineMs) {
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

  publish() {}
}

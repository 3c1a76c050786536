/** How a crowd talks: in closed rounds, or at a set rate. */

import { setImmediate } from "node:timers";
import type { Crowd } from "./crowd.ts";
import { Histogram } from "./histogram.ts";

/** Starts closed rounds: a sender that heard its whole round begins the next, unless `stop` says so. */
export function closedRounds(crowd: Crowd, stop: (sender: number) => boolean) {
  const senders = crowd.sent.length;
  const round = crowd.options.dialect === "echo" ? 1 : senders;
  // A sender is at most one round ahead of another, so two counts are enough.
  const heard = new Int32Array(senders * 2);
  crowd.heardBySender = (own, _sender, number) => {
    const at = own * 2 + (number & 1);
    if (++heard[at] < round) return;
    heard[at] = 0;
    if (!stop(own)) crowd.speak(own);
  };
  for (let sender = 0; sender < senders; sender++) crowd.speak(sender);
}

/** Has every sender do `rounds` closed rounds, and waits until all is heard. */
export async function countedRounds(crowd: Crowd, rounds: number): Promise<void> {
  if (rounds === 0) return;
  const last = crowd.sent[0] + rounds;
  closedRounds(crowd, (sender) => crowd.sent[sender] >= last);
  await untilSent(crowd, last);
  await crowd.drain();
}

/** Waits until each sender has sent `last` messages; a missing message leaves it to `drain` to say which. */
async function untilSent(crowd: Crowd, last: number): Promise<void> {
  const patience = (crowd.options.stallSeconds ?? 5) * 1000;
  let before = -1;
  let since = performance.now();
  while (crowd.sent.some((count) => count < last)) {
    await crowd.sleep(1);
    const { total } = crowd.ledger;
    if (total !== before) [before, since] = [total, performance.now()];
    if (performance.now() - since > patience) return;
  }
}

/** What to send when. */
export interface Rate {
  warmupSeconds: number;
  seconds: number;
  /** Deliveries a second over all listeners. */
  perSecond: number;
}

/**
 * Sends at a set rate, in all crowds by turns, whatever is heard. `latency` is from the time a message was due to each listener's hearing it,
 * `lateness` to its sending; both without the warm-up's. It goes on filling until all is heard.
 */
export async function openLoop(
  crowds: Crowd[],
  { warmupSeconds, seconds, perSecond }: Rate,
): Promise<{ latency: Histogram; lateness: Histogram }> {
  const { sent: { length: senders }, options: { listeners } } = crowds[0];
  const interval = 1000 * listeners / perSecond;
  const latency = new Histogram();
  const lateness = new Histogram();
  const from = Math.ceil(warmupSeconds * 1000 / interval);
  const end = from + Math.ceil(seconds * 1000 / interval);
  const start = performance.now() + 5;
  const due = (k: number) => start + k * interval;
  for (const [room, crowd] of crowds.entries()) {
    const base = crowd.sent[0];
    crowd.heardBySender = () => {};
    crowd.heardByAny = (sender, number) => {
      const k = ((number - base) * senders + sender) * crowds.length + room;
      if (k >= from) latency.add(performance.now() - due(k));
    };
  }
  // A timer would be up to 1 ms late; turning round and round is not.
  await new Promise<void>((resolve, reject) => {
    let k = 0;
    const turn = () => {
      for (; k < end && due(k) <= performance.now(); k++) {
        if (k >= from) lateness.add(performance.now() - due(k));
        crowds[k % crowds.length].speak(Math.floor(k / crowds.length) % senders);
      }
      const failed = crowds.find(({ failed }) => failed)?.failed;
      if (failed) reject(failed);
      else if (k < end) setImmediate(turn);
      else resolve();
    };
    turn();
  });
  return { latency, lateness };
}

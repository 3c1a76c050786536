/** How a server sends its clients away: spread over time, so that they come back spread. */
import type { Registry } from "./registry.ts";

const STEP_MS = 50;

/**
 * Sends all clients away, spread over so many seconds. Those that can understand it learn at once when
 * to come back.
 * @returns when all are gone or the time is over
 */
export function drain({ clients, clock, turn }: Registry, seconds: number): Promise<void> {
  const drainMs = seconds * 1_000;
  const leaving = [...clients];
  for (const client of leaving) client.bye(Math.round(drainMs + Math.random() * drainMs));
  const start = clock.elapsedMs();
  let next = 0;
  return new Promise((resolve) => {
    const step = () => {
      const share = drainMs === 0 ? 1 : Math.min(1, (clock.elapsedMs() - start) / drainMs);
      // A client that goes gets what was pending.
      turn.flush();
      while (next < leaving.length && next < share * leaving.length) {
        leaving[next++].close("goingAway");
      }
      if (clients.size > 0 && share < 1) return;
      stop();
      for (const client of [...clients]) client.close("goingAway");
      resolve();
    };
    const stop = clock.every(STEP_MS, step);
    step();
  });
}

/** What a server counts: plain numbers, read when somebody asks for the metrics. */
import { setImmediate } from "node:timers";
const SAMPLE = 64;
const FAN_OUT_MS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000];

/** How many figures were up to each of some bounds. */
export class Histogram {
  /** One count for each bound, and one for what is above all. */
  readonly counts: number[];
  sum = 0;

  /** @param bounds ascending */
  constructor(readonly bounds: number[]) {
    this.counts = Array<number>(bounds.length + 1).fill(0);
  }

  add(figure: number): void {
    let i = 0;
    while (i < this.bounds.length && figure > this.bounds[i]) i++;
    this.counts[i]++;
    this.sum += figure;
  }
}

/** Counters since the start. Nothing more than an increment happens on a message's way. */
export class Counters {
  messagesIn = 0;
  bytesIn = 0;
  /** Frames to clients. With `parley.v1` one holds several messages. */
  framesOut = 0;
  /** UTF-16 units for text, bytes for binary: the cheap measure. */
  bytesOut = 0;
  /** Messages, once for each subscriber that they went to. */
  deliveries = 0;
  /** Objects in each merged frame that was made for all of a room. */
  batchSizes = new Histogram([1, 2, 4, 8, 16, 32, 64, 128, 256]);
  /** Seconds from a message's arrival until its frames were written, of one in {@link SAMPLE}. */
  fanOutSeconds = new Histogram(FAN_OUT_MS.map((ms) => ms / 1_000));
  /** Sockets that have joined now, a room each. */
  members = 0;
  connections = { plain: 0, v1: 0, echo: 0, events: 0 };
  recoveries = { complete: 0, partial: 0 };
  /** Closes that the server began, by reason. */
  closes = { goingAway: 0, rateLimited: 0, notAllowed: 0, tokenExpired: 0, tooBig: 0, tooSlow: 0 };
  /** Hooks that answered later, by what came of it. */
  hookCalls: Record<string, number> = { passed: 0, refused: 0, unavailable: 0, failed: 0 };
  hookSeconds = 0;
  hookWaiting = 0;
  /** How late the event loop was at the last second, in ms. */
  lagMs = 0;
  /** Errors sent and requests refused, by code: a fixed set. */
  refusals: Record<string, number> = {};

  /**
   * Times the fan-out of one message in {@link SAMPLE}: call the answer when the engine has it; the
   * loop comes round when it is written.
   */
  timeFanOut(): (() => void) | undefined {
    if (this.#published++ % SAMPLE !== 0) return;
    const start = performance.now();
    return () => setImmediate(() => this.fanOutSeconds.add((performance.now() - start) / 1_000));
  }

  #published = 0;

  refuse(code: string): void {
    this.refusals[code] = (this.refusals[code] ?? 0) + 1;
  }
}

/** What one thread counts: numbers, which {@link addUp} adds. */
export type Figures = { [name: string]: number | Figures };

/** The sum of what several threads count, name by name. */
export function addUp(all: Figures[]): Figures {
  const sums: Figures = {};
  for (const [name, value] of all.flatMap((figures) => Object.entries(figures))) {
    const sum = sums[name] ?? 0;
    sums[name] = typeof value === "number"
      ? Number(sum) + value
      : addUp([typeof sum === "number" ? {} : sum, value]);
  }
  return sums;
}

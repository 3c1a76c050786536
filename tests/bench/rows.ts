/** The work that is measured, one row of the table each. */

import type { TextShape } from "./text.ts";

/** Who talks to whom. */
export interface Shape {
  /** Of each room. */ listeners: number;
  /** Of each room. */ senders: number;
  /** @default 1 */ rooms?: number;
  text: TextShape;
}

/** One row. */
export interface Row extends Shape {
  /** What `--only` matches. */
  name: string;
  kind: "echo" | "chat" | "unix" | "latency" | "idle" | "start" | "history";
  /** Whether `--quick` measures it. */
  quick?: boolean;
}

const SMALL = { bytes: 64 };
const TEXTS: [string, TextShape][] = [
  ["1 kB", { bytes: 1024 }],
  ["16 kB", { bytes: 16384 }],
  ["Korean", { bytes: 64, korean: true }],
];

const crowd = (count: number, text: TextShape = SMALL): Shape => ({
  listeners: count,
  senders: count,
  text,
});
const fromTo = (senders: number, listeners: number): Shape => ({
  listeners,
  senders,
  text: SMALL,
});

/** All rows, in the order they are measured. */
export const ROWS: Row[] = [
  ...[1, 32, 200, 1000].map((count): Row => ({
    name: `echo ${count}`,
    kind: "echo",
    quick: count === 32,
    ...crowd(count),
  })),
  ...TEXTS.map(([label, text]): Row => ({
    name: `echo 32, ${label}`,
    kind: "echo",
    ...crowd(32, text),
  })),
  { name: "chat 32x32", kind: "chat", quick: true, ...crowd(32) },
  { name: "chat 200x200", kind: "chat", quick: true, ...crowd(200) },
  { name: "chat 10→1000", kind: "chat", quick: true, ...fromTo(10, 1000) },
  { name: "chat 1→5000", kind: "chat", ...fromTo(1, 5000) },
  ...TEXTS.map(([label, text]): Row => ({
    name: `chat 32x32, ${label}`,
    kind: "chat",
    ...crowd(32, text),
  })),
  { name: "socket 32x32", kind: "unix", ...crowd(32) },
  { name: "socket 200x200", kind: "unix", ...crowd(200) },
  { name: "socket 10→1000", kind: "unix", ...fromTo(10, 1000) },
  { name: "latency 32x32", kind: "latency", ...crowd(32) },
  { name: "latency 10→1000", kind: "latency", ...fromTo(10, 1000) },
  // At 200,000 deliveries a second each member would say one message in 5 s.
  { name: "latency 100 rooms of 100", kind: "latency", rooms: 100, ...crowd(100) },
  // The first thousand warm up, and are not counted.
  { name: "idle 10000", kind: "idle", ...fromTo(0, 11000) },
  { name: "start", kind: "start", ...fromTo(0, 0) },
  { name: "history 64 B", kind: "history", ...crowd(16) },
  ...TEXTS.filter(([label]) => label !== "16 kB").map(([label, text]): Row => ({
    name: `history ${label}`,
    kind: "history",
    ...crowd(16, text),
  })),
];

/** How long a listener that does not send waits between reads, in ms, so that reading is not what is measured. */
export function readEvery({ listeners, senders }: Shape): number {
  return listeners > 2 * senders ? listeners / 50 : 0;
}

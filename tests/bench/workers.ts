/**
 * The same plain fan-out with WORKERS=1 and WORKERS=2: deliveries a second of the server's own
 * processor time. Server and load generators share the cores, so deliveries a second of the clock
 * say little: with two workers the generators have less left.
 *
 *     deno run -A tests/bench/workers.ts
 *
 * @module
 */
import { readFlags } from "./flags.ts";
import { runLoad } from "./sample.ts";
import { freePort } from "../support/process.ts";
import { ANY_CORE, ServerProcess } from "./server_process.ts";
import { parleyCommand } from "./servers.ts";

readFlags(import.meta.url);
const TURNS = 3;

/** Rooms with so many listeners, of whom so many talk; each room has a load generator of its own. */
const SHAPES = [
  { rooms: 1, listeners: 200, senders: 10 },
  { rooms: 2, listeners: 200, senders: 10 },
  { rooms: 1, listeners: 1_000, senders: 10 },
  { rooms: 8, listeners: 10, senders: 10 },
];

interface Measured {
  perSecond: number;
  perCpuSecond: number;
}

async function measure(workers: number, { rooms, ...shape }: typeof SHAPES[0]): Promise<Measured> {
  const address = freePort();
  const command = parleyCommand(address, { WORKERS: String(workers) });
  const server = await ServerProcess.start(command, address, ANY_CORE);
  try {
    const results = await Promise.all(Array.from({ length: rooms }, (_, room) =>
      runLoad({
        ...shape,
        address,
        path: `/chat/room-${room}`,
        dialect: "plain",
        text: { bytes: 64 },
        readEvery: 0,
        work: "closed",
        checkedRounds: 1,
        warmupSeconds: 1,
        seconds: 3,
        serverPid: server.pid,
      }, ANY_CORE)));
    const sum = (figures: number[]) => figures.reduce((total, figure) => total + figure);
    const perSecond = sum(results.map(({ delivered, seconds }) => delivered / seconds));
    const busy = sum(results.map(({ serverBusy }) => serverBusy ?? NaN)) / rooms;
    return { perSecond, perCpuSecond: perSecond / busy };
  } finally {
    await server.stop();
  }
}

const median = (figures: number[]) => figures.toSorted((a, b) => a - b)[figures.length >> 1];
const short = (figure: number) => `${Math.round(figure / 1_000)} k`;

console.log("| plain chat | workers | delivered a second | a CPU-second | ÷ 1 worker |");
console.log("| --- | --: | --: | --: | --: |");
for (const shape of SHAPES) {
  const turns: Measured[][] = [[], []];
  for (let turn = 0; turn < TURNS; turn++) {
    for (const workers of [1, 2]) turns[workers - 1].push(await measure(workers, shape));
  }
  const perCpu = turns.map((measured) => median(measured.map((one) => one.perCpuSecond)));
  turns.forEach((measured, index) => {
    const { rooms, senders, listeners } = shape;
    const perSecond = median(measured.map((one) => one.perSecond));
    const ratio = (perCpu[index] / perCpu[0]).toFixed(2);
    console.log(
      `| ${rooms} × ${senders} talk to ${listeners} | ${index + 1} | ${short(perSecond)} | ` +
        `${short(perCpu[index])} | ${ratio} × |`,
    );
  });
}

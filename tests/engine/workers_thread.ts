/**
 * A workers engine in a real worker, and the same engine as the thread that started it sees it.
 *
 * @module
 */
import { Line } from "../../handlers/engine/channel.ts";
import type { Engine, Host } from "../../handlers/engine/engine.ts";
import type { HistoryLimits } from "../../handlers/engine/memory.ts";
import { createWorkersEngine } from "../../handlers/engine/workers.ts";
import type { RoomEvent } from "../../handlers/protocol/room_event.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";

/** An engine whose hosts are named by a number: a host cannot be copied. */
interface EngineCalls extends Omit<Engine, "name" | "host" | "isReady" | "stats"> {
  host(room: string, host: number, listenerCount: number): ReturnType<Engine["host"]>;
}

interface HostCalls {
  deliver(host: number, event: RoomEvent): void;
}

const ANSWER_MS = 60_000;

/** Starts worker 1 of two; `port` is its engine's. */
export function startEngineThread(
  limits: HistoryLimits,
  port: MessagePort,
): { engine: Engine; worker: Worker } {
  const worker = new Worker(import.meta.url, { type: "module" });
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(limits, [port2, port]);
  const delivers: Host["deliver"][] = [];
  const line = new Line<HostCalls, EngineCalls>(port1, {
    calls: { deliver: (host, event) => delivers[host](event) },
    answerMs: ANSWER_MS,
    clock: systemClock,
  });
  const engine: Engine = {
    name: "workers",
    host(room, host) {
      // Who asked sees the head before the first event.
      let heard: Promise<unknown>;
      const index = delivers.push((event) => heard = heard.then(() => host.deliver(event))) - 1;
      const head = line.ask("host", room, index, host.listenerCount);
      heard = head.then(() => new Promise((resolve) => setImmediate(resolve)));
      return head;
    },
    release: (room) => line.tell("release", room),
    publish: (room, draft) => line.ask("publish", room, draft),
    relay: (room, bytes, from) => line.tell("relay", room, bytes, from),
    join: (room, member, name) => line.ask("join", room, member, name),
    leave: (room, member) => line.tell("leave", room, member),
    members: (room) => line.ask("members", room),
    read: (room, after) => line.ask("read", room, after),
    rooms: async (after, limit) => {
      const rooms = await line.ask("rooms", after, limit);
      return "refused" in rooms ? [] : rooms;
    },
    isReady: () => true,
    stats: () => ({ rooms: 0, historyBytes: 0 }),
    async close() {
      await line.ask("close");
      line.close();
    },
  };
  return { engine, worker };
}

function serveEngine(limits: HistoryLimits, control: MessagePort, port: MessagePort): void {
  const engine = createWorkersEngine({
    ports: [port, undefined],
    limits,
    clock: systemClock,
    log: silentLog,
  });
  const line = new Line<EngineCalls, HostCalls>(control, {
    calls: {
      ...engine,
      host: (room, host, listenerCount) =>
        engine.host(room, {
          listenerCount,
          deliver: (event) => line.tell("deliver", host, event),
        }),
    },
    answerMs: ANSWER_MS,
    clock: systemClock,
  });
}

if ("WorkerGlobalScope" in globalThis) {
  addEventListener("message", (event) => {
    const { data, ports: [control, port] } = event as MessageEvent<HistoryLimits>;
    serveEngine(data, control, port);
  }, { once: true });
}

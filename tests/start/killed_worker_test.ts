import { assert, assertEquals } from "@std/assert";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import { LimitTable } from "../../handlers/access/shared_limits.ts";
import { connect, type ParleyError } from "../../handlers/client/client.js";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import { createApp } from "../../handlers/app.ts";
import { runApp } from "../../handlers/run_app.ts";
import { createWorkers } from "../../handlers/start/workers.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { ROOMY } from "../engine/contract.ts";
import { RecordingLog } from "../support/fakes.ts";
import { StateTraffic } from "../faults/state_traffic.ts";
import { eventually } from "../support/inbox.ts";
import { freePort } from "../support/process.ts";
import { within } from "../support/recorder.ts";
import { sized } from "../support/run.ts";
import { range } from "../support/v1.ts";
import { type ServingSettings, UNLIMITED } from "./serving_thread.ts";

const KILLS = sized(2, 20);

/** A client that talks without a pause, and writes down what it hears. */
function startTalker(port: number, name: string) {
  const heard: { epoch: string; seq: number; message: unknown }[] = [];
  const errors: ParleyError[] = [];
  const acked = new Map<number, unknown>();
  const counts = { welcomes: 0, gaps: 0 };
  let isOver = false;
  const client = connect(`ws://127.0.0.1:${port}/chat/ops`, {
    name,
    onMessage: ({ epoch, seq, message }) => void heard.push({ epoch, seq, message }),
    onWelcome: () => void counts.welcomes++,
    onGap: () => void counts.gaps++,
    onError: (error) => void errors.push(error),
  });
  const talking = (async () => {
    for (let index = 0; !isOver; index++) {
      const message = `${name} ${index}`;
      const { seq } = await client.send(message);
      acked.set(seq, message);
    }
  })();
  const stop = () => {
    isOver = true;
    return talking;
  };
  return { client, heard, errors, acked, counts, stop };
}

Deno.test(`a worker that is killed ${KILLS} times in traffic: its sockets come back, its bound keys go, no room loses anything`, async () => {
  // Before Math.random is replaced: a port that is always the same would be another run's, too.
  const port = freePort();
  const { random } = Math;
  // The shortest waits before a client comes back.
  Math.random = () => 0.01;
  const memory = createMemoryEngine({ ...ROOMY, historySize: 100_000 }, systemClock);
  const shared = shareEngine(memory);
  const workers = createWorkers<ServingSettings>({
    count: 2,
    module: import.meta.resolve("./serving_thread.ts"),
    shared,
    limits: new LimitTable({ ...DEFAULT_LIMITS, ...UNLIMITED }, systemClock),
    log: new RecordingLog(),
    clock: systemClock,
  });
  await workers.launch({ port });
  const parley = runApp(createApp({ engine: workers.engine, threads: workers, limits: UNLIMITED }));
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, parley.fetch);

  const visitors = ["Ann", "Bob"].map((name) => startTalker(port, name));
  const all = [...visitors, startTalker(server.addr.port, "Cy")];
  const urlOf = (room: string) => `ws://127.0.0.1:${port}/chat/${room}`;
  const node = { urlOf, port: server.addr.port };
  await using state = new StateTraffic([node], "ops", 6);
  for (const kill of range(1, KILLS + 1)) {
    await eventually(
      () => visitors.map(({ counts, acked }) => [counts.welcomes, acked.size]),
      (counts) => counts.every(([welcomes, acks]) => welcomes >= kill && acks > 10 * kill),
    );
    await within(30_000, () => state.untilOnlyLiving(node));
    if (kill <= KILLS) await workers.engine.publish("kill", { sender: "main", message: "1" });
  }
  await Promise.all(all.map(({ stop }) => stop()));
  await state.stop();
  const span = await memory.read("ops");
  assert(!("refused" in span));
  for (const { heard } of all) await eventually(() => heard.at(-1)?.seq, (seq) => seq === span.seq);
  for (const { client } of all) client.close();
  await workers.stop();
  await parley[Symbol.asyncDispose]();
  await server.shutdown();
  Math.random = random;

  const kept = new Map(span.chats.map(({ seq, message }) => [seq, JSON.parse(message)]));
  assertEquals(kept.size, span.seq);
  for (const { heard, errors, acked, counts } of all) {
    assertEquals([errors, counts.gaps], [[], 0]);
    for (const [seq, message] of acked) assertEquals(kept.get(seq), message);
    const first = heard[0].seq;
    assertEquals(heard.map(({ seq }) => seq), range(first, span.seq));
    for (const { epoch, seq, message } of heard) {
      assertEquals([epoch, message], [span.epoch, kept.get(seq)]);
    }
  }
  const texts = new Set(kept.values());
  assertEquals(texts.size, kept.size, "a message was published twice");
});

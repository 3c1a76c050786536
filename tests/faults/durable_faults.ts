/** A server with a DATA_FILE is killed, stopped, or loses its disk, in the middle of traffic. */
import { assert, assertEquals } from "@std/assert";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { isRefusal } from "../../handlers/engine/engine.ts";
import { SqliteFile } from "../../handlers/engine/sqlite.ts";
import type { Span } from "../../handlers/protocol/page.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { draft, range } from "../engine/contract.ts";
import { TestProcess } from "../support/process.ts";
import { eventually, granted } from "../support/recorder.ts";
import { sized } from "../support/run.ts";
import { TIGHT } from "./busy_engine.ts";
import { ServerNode } from "./server_node.ts";
import { StateTraffic } from "./state_traffic.ts";
import { Traffic } from "./traffic.ts";
import { addFault } from "./add_fault.ts";

/** How often the server ends. */
const ROUNDS = sized(1, 20);
/** How many messages are acked before each end. */
const MESSAGES = sized(100, 300);
const ROOMS = ["one", "two"];

/** Posts one message after the other, each again until it is acked. */
function postOn(node: ServerNode, traffic: Traffic): () => Promise<void> {
  let isOver = false;
  const post = async () => {
    for (let i = 0; !isOver; i++) {
      const room = ROOMS[i % ROOMS.length];
      const message = `posted ${i}`;
      for (;;) {
        const place = await node.post(room, message, `key ${i}`);
        if (!isRefusal(place)) {
          traffic.acks.push({ ...place, room, message: JSON.stringify(message) });
          break;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  };
  const posting = post();
  return () => {
    isOver = true;
    return posting;
  };
}

/** Ends a server in the middle of traffic, and starts it again. */
async function endInTraffic(signal: "SIGKILL" | "SIGTERM", workers: number): Promise<void> {
  const folder = await Deno.makeTempDir();
  const env = { DATA_FILE: `${folder}/parley.db`, WORKERS: `${workers}` };
  {
    await using node = await ServerNode.start(env);
    // 8 listeners, 32 senders.
    await using traffic = await Traffic.start(Array(4).fill(node), ROOMS, 4);
    const stopPosting = postOn(node, traffic);
    await using state = new StateTraffic([node], "one", 4);
    for (let round = 0; round < ROUNDS; round++) {
      await traffic.flow(MESSAGES);
      const { code } = await node.end(signal);
      assertEquals(code, signal === "SIGKILL" ? 137 : 0);
      const heard = traffic.views.map(({ recorder }) => recorder.events.length);
      await node.restart();
      for (const [i, { recorder }] of traffic.views.entries()) {
        await recorder.until(({ events }) => events.length > heard[i]);
      }
      await state.untilOnlyLiving(node);
    }
    await traffic.flow(MESSAGES);
    await stopPosting();
    await state.stop();
    await traffic.stop();
    await traffic.check({ mayReset: false, withinMs: Infinity });
    const posted = traffic.acks.filter(({ message }) => message.startsWith('"posted')).length;
    assert(
      posted > ROUNDS && traffic.refusals > 0,
      `${posted} posts, ${traffic.refusals} refusals`,
    );
    assert(node.reconnects >= 8 * ROUNDS, `${node.reconnects} listeners came back`);
    await eventually(() => node.readiness(), (status) => status === 200);
  }
  await Deno.remove(folder, { recursive: true });
}

/** Kills a program that stores much more than is kept. */
async function killBusyEngine(): Promise<void> {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/parley.db`;
  for (let round = 0; round < ROUNDS; round++) {
    await using process = new TestProcess(["run", "-A", "tests/faults/busy_engine.ts", path]);
    const before = round * 37 % 100;
    await process.line(/./, 20 * MESSAGES + before);
    process.kill("SIGKILL");
    await process.status;
    const engine = await createDurableEngine(path, TIGHT, systemClock, silentLog);
    const kept = new Map<string, Span>();
    for (let i = 0; i < 100; i++) {
      const span = await granted(engine.read(`room-${i}`));
      if (span.seq > 0) kept.set(`room-${i} ${span.epoch}`, span);
      const first = Math.max(1, span.seq - TIGHT.historySize + 1);
      assertEquals(span.chats.map(({ seq }) => seq), range(first, span.seq));
    }
    let found = 0;
    // The last line may be cut off.
    for (const line of process.lines("stdout").slice(0, -1)) {
      const [room, epoch, seq, message] = line.split(" ");
      const span = kept.get(`${room} ${epoch}`);
      if (!span) continue;
      assert(span.seq >= Number(seq), `lost: ${line}`);
      const chat = span.chats.find((chat) => chat.seq === Number(seq));
      if (!chat) continue;
      assertEquals(chat.message, message, line);
      found++;
    }
    assert(kept.size === TIGHT.maxRooms && found > 0, `${kept.size} rooms, ${found} messages`);
    await engine.close();
  }
  const engine = await createDurableEngine(path, TIGHT, systemClock, silentLog);
  const spans = await Promise.all(range(0, 99).map((i) => granted(engine.read(`room-${i}`))));
  const keptCount = spans.reduce((sum, { chats }) => sum + chats.length, 0);
  // Each batch deletes some of what the kills have left.
  for (let i = 0; i < 50; i++) await granted(engine.publish("room-0", draft("x")));
  await engine.close();
  const file = new SqliteFile(path, "test", false);
  let chatCount = 0;
  file.read((_, entry) => chatCount += entry[0] === "chat" ? 1 : 0);
  file.close();
  assert(chatCount <= keptCount + 10, `${chatCount} rows of ${keptCount} messages`);
  await Deno.remove(folder, { recursive: true });
}

addFault(
  "a server that ends by SIGKILL comes back with all that was acked or heard",
  () => endInTraffic("SIGKILL", 1),
);
addFault(
  "a server that ends by SIGTERM comes back with all that was acked or heard (WORKERS 2)",
  () => endInTraffic("SIGTERM", 2),
);
addFault(
  "an engine that drops much and is killed keeps what was acked without a gap, and leaves no row behind",
  killBusyEngine,
);

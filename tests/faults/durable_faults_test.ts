/** A server with a DATA_FILE is killed, stopped, or loses its disk, in the middle of traffic. */
import { assert, assertEquals } from "@std/assert";
import { isRefusal } from "../../handlers/engine/engine.ts";
import { eventually } from "../support/recorder.ts";
import { sized } from "../support/run.ts";
import { ServerNode } from "./server_node.ts";
import { Traffic } from "./traffic.ts";

/** How often the server ends. */
const ROUNDS = { SIGKILL: sized(2, 20), SIGTERM: sized(1, 20) };
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

for (const [signal, workers] of [["SIGKILL", 1], ["SIGTERM", 2]] as const) {
  Deno.test(`a server that ends by ${signal} comes back with all that was acked or heard (WORKERS ${workers})`, async () => {
    const rounds = ROUNDS[signal];
    const folder = await Deno.makeTempDir();
    const env = { DATA_FILE: `${folder}/parley.db`, WORKERS: `${workers}` };
    {
      await using node = await ServerNode.start(env);
      // 8 listeners, 32 senders.
      await using traffic = await Traffic.start(Array(4).fill(node), ROOMS, 4);
      const stopPosting = postOn(node, traffic);
      for (let round = 0; round < rounds; round++) {
        await traffic.flow(MESSAGES);
        const { code } = await node.end(signal);
        assertEquals(code, signal === "SIGKILL" ? 137 : 0);
        const heard = traffic.views.map(({ recorder }) => recorder.events.length);
        await node.restart();
        for (const [i, { recorder }] of traffic.views.entries()) {
          await recorder.until(({ events }) => events.length > heard[i]);
        }
      }
      await traffic.flow(MESSAGES);
      await stopPosting();
      await traffic.stop();
      await traffic.check({ mayReset: false, withinMs: Infinity });
      const posted = traffic.acks.filter(({ message }) => message.startsWith('"posted')).length;
      assert(
        posted > rounds && traffic.refusals > 0,
        `${posted} posts, ${traffic.refusals} refusals`,
      );
      assert(node.reconnects >= 8 * rounds, `${node.reconnects} listeners came back`);
      await eventually(() => node.readiness(), (status) => status === 200);
    }
    await Deno.remove(folder, { recursive: true });
  });
}

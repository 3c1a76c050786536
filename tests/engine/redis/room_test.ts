import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import type { RedisConnection } from "../../../handlers/engine/redis/connection.ts";
import type { Refusal } from "../../../handlers/engine/engine.ts";
import { type RedisNode, RedisRoom } from "../../../handlers/engine/redis/room.ts";
import { FakeClock } from "../../support/fakes.ts";
import { nextTurn } from "../../support/inbox.ts";
import { Recorder } from "../../support/recorder.ts";

/** A node whose calls wait until the test answers them. */
class FakeNode implements RedisNode {
  readonly events = "";
  readonly id = "node";
  readonly live = { nodes: "node other", seenAt: 9 };
  readonly due = new Set<RedisRoom>();
  readonly clock = new FakeClock();
  readonly calls: {
    script: string;
    args: readonly (string | number)[];
    answer: (answer?: unknown) => void;
  }[] = [];

  run(
    script: string,
    _keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    return new Promise((answer) => this.calls.push({ script, args, answer }));
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  /** Answers the oldest call, and lets the room go on; gives the call as text. */
  async answer(answer?: unknown): Promise<string> {
    const call = this.calls.shift();
    call?.answer(answer);
    await nextTurn();
    // The last argument is EVENTS: nothing.
    return call ? [call.script, ...call.args.slice(0, -1)].join(" ") : "";
  }

  get scripts(): string[] {
    return this.calls.map(({ script }) => script);
  }
}

function openRoom() {
  const node = new FakeNode();
  const room = new RedisRoom("r", ["head"], node);
  /** Has a sync answered, and gives what it told of the members: "0", or "1" and each one. */
  const told = async (answer: unknown = synced(1)) => {
    room.sync();
    return (await node.answer(answer)).split(" 9 0 ")[1];
  };
  return { node, room, told };
}

function synced(
  seq: number,
  more: { isUnknown?: number; hasMore?: number; entries?: number[] } = {},
) {
  const entries = (more.entries ?? []).map((seq) => [`${seq}-1`, ["m", `5 3 Ann${seq}`]]);
  return [[seq, 0, 2, 1, more.isUnknown ?? 0, more.hasMore ?? 0, -1], "e", entries, []];
}

const unavailable: Refusal = { refused: "unavailable" };

Deno.test("RedisRoom.open() answers with the head as soon as a sync has come", async () => {
  const { node, room } = openRoom();
  const opened = room.open(new Recorder(3));
  assertEquals(await node.answer(), "sync  0  node 3 node other 9 0 0");
  room.sync();
  await node.answer(synced(7));
  assertEquals(await opened, { epoch: "e", seq: 7, rev: 0, members: 2 });
  room.sync();
  assertEquals(await node.answer(synced(7)), "sync e 7  node 3 node other 9 0 0");
  assertEquals(room.view?.seq, 7);
});

Deno.test("RedisRoom.close() refuses an open() that still waits, and ignores later answers", async () => {
  const { node, room } = openRoom();
  const opened = room.open(new Recorder());
  room.close();
  assertEquals(await opened, unavailable);
  const recorder = new Recorder();
  room.open(recorder);
  await node.answer(synced(7));
  await node.answer(synced(9));
  assertEquals([room.view?.seq, recorder.events], [9, []]);
});

Deno.test("RedisRoom.sync() asks again until it has all that was missed", async () => {
  const { node, room } = openRoom();
  const recorder = new Recorder();
  room.open(recorder);
  await node.answer(synced(1));
  room.view?.pause();
  room.catchUp();
  room.catchUp();
  assertEquals(node.scripts, ["sync"]);
  await node.answer(synced(5, { entries: [2, 3] }));
  assertEquals(
    await node.answer(synced(5, { entries: [4, 5] })),
    "sync e 3 5 node 1 node other 9 0 0",
  );
  assertEquals([recorder.messages, node.scripts], [["2", "3", "4", "5"], []]);
  room.catchUp();
  assertEquals(node.scripts, []);
});

Deno.test("RedisRoom.sync() asks again while there are members of dead nodes", async () => {
  const { node, room } = openRoom();
  room.open(new Recorder());
  await node.answer(synced(1, { hasMore: 1 }));
  assertEquals(node.scripts, ["sync"]);
  await node.answer(synced(1));
  assertEquals(node.scripts, []);
});

Deno.test("RedisRoom registers its members where Redis does not know the node", async () => {
  const { node, room, told } = openRoom();
  const joined = room.members.join("m1", "Ann");
  assertEquals(await node.answer(null), "join node m1 3 Ann");
  assertEquals([await joined, room.members.size], [undefined, 1]);
  assertEquals(await told(synced(1, { isUnknown: 1 })), "0");
  assertEquals((await node.answer(synced(1))).split(" 9 0 ")[1], "1 m1 3 Ann");
  assertEquals([await told(), node.scripts], ["0", []]);
});

Deno.test("RedisRoom takes back a join that got no answer, at the next sync in Redis too", async () => {
  const { node, room, told } = openRoom();
  const joined = room.members.join("m1", "Ann");
  await node.answer();
  assertEquals([await joined, room.members.size, room.isIdle], [unavailable, 0, false]);
  assertEquals(await told(), "1");
  assertEquals(room.isIdle, true);
});

Deno.test("RedisRoom keeps the name before a renaming that got no answer", async () => {
  const { node, room, told } = openRoom();
  for (const answer of [null, undefined]) {
    room.members.join("m1", answer === null ? "Ann" : "Anna");
    await node.answer(answer);
  }
  assertEquals(await told(), "1 m1 3 Ann");
});

Deno.test("RedisRoom keeps a later join though an earlier one got no answer", async () => {
  const { node, room, told } = openRoom();
  room.members.join("m1", "Ann");
  room.members.join("m1", "Anna");
  await node.answer();
  await node.answer(null);
  assertEquals(await told(), "1 m1 4 Anna");
});

Deno.test("RedisRoom forgets overlapping joins that were all refused", async () => {
  const { node, room, told } = openRoom();
  const joins = [room.members.join("m1", "Ann"), room.members.join("m1", "Bea")];
  await node.answer();
  await node.answer();
  assertEquals(await Promise.all(joins), [unavailable, unavailable]);
  assertEquals(room.members.size, 0);
  assertEquals(await told(), "1");
});

Deno.test("RedisRoom falls back from overlapping refused renamings to the confirmed name", async () => {
  const { node, room, told } = openRoom();
  for (const name of ["Ann", "Bea", "Cleo"]) room.members.join("m1", name);
  await node.answer(null);
  await node.answer();
  await node.answer();
  assertEquals(await told(), "1 m1 3 Ann");
});

Deno.test("RedisRoom takes no name from before a leave()", async () => {
  const { node, room } = openRoom();
  room.members.join("m1", "Ann");
  room.members.leave("m1");
  room.members.join("m1", "Bea");
  for (const answer of [null, null, undefined]) await node.answer(answer);
  assertEquals(room.members.size, 0);
});

Deno.test("LocalMembers.leave() is made up for where it got no answer", async () => {
  const { node, room, told } = openRoom();
  room.members.join("m1", "Ann");
  await node.answer(null);
  room.members.leave("m1");
  room.members.leave("unknown");
  assertEquals(node.scripts, ["leave"]);
  await node.answer();
  assertEquals(room.isIdle, false);
  assertEquals([await told(null), room.isIdle], ["1", false]);
  assertEquals([await told(), room.isIdle], ["1", true]);
});

Deno.test("LocalMembers.clear() removes all", async () => {
  const { node, room, told } = openRoom();
  room.open(new Recorder());
  await node.answer(synced(1));
  room.members.join("m1", "Ann");
  await node.answer(null);
  room.members.clear();
  assertEquals(await told(), "1");
});

/** An open room at 7, with its host. */
async function roomAtSeven() {
  const { node, room } = openRoom();
  const recorder = new Recorder(3);
  room.open(recorder);
  await node.answer(synced(7));
  return { node, room, recorder };
}

Deno.test("RedisRoom.compare() asks for a sync only where something is missing", async () => {
  for (
    const [answer, scripts] of [
      [["e", 7, 0], ""],
      [["e", 8, 0], "sync"],
      [["f", 7, 0], "sync"],
      [["e", 7, 1], "sync"],
    ] as const
  ) {
    const { node, room } = await roomAtSeven();
    room.compare()([...answer, 0]);
    assertEquals(node.scripts.join(), scripts);
  }
});

Deno.test("RedisRoom.compare() subscribes anew where a message did not come", async () => {
  const { room } = await roomAtSeven();
  const sent: string[] = [];
  room.connection = {
    unsubscribe: (channel: string) => sent.push(`-${channel}`),
    subscribe: (channels: string[]) => sent.push(`+${channels}`),
  } as unknown as RedisConnection;
  room.compare()(["e", 7, 0, 0]);
  assertEquals(sent, []);
  room.compare()(["e", 8, 0, 0]);
  assertEquals(sent, ["-head", "+head"]);
});

Deno.test("RedisRoom.compare() on a new connection delivers what came meanwhile, once", async () => {
  const { node, room, recorder } = await roomAtSeven();
  room.view?.pause();
  const onAnswer = room.compare();
  room.view?.push(Buffer.from("ce 8 5 3 Ann8"));
  assertEquals(recorder.messages, []);
  onAnswer(["e", 7, 0, 0]);
  assertEquals([recorder.messages, node.scripts], [["8"], []]);
});

Deno.test("RedisRoom asks to be tried again where it delivers nothing for want of a sync", async () => {
  const { node, room } = await roomAtSeven();
  room.compare()(undefined);
  assertEquals(node.due.size, 0);
  room.view?.pause();
  room.compare()(undefined);
  assert(node.due.delete(room));
  room.catchUp();
  await node.answer();
  assert(node.due.delete(room));
});

Deno.test("RedisRoom has a key's end in mind until a sync has told that it has ended", async () => {
  const { node, room, told } = openRoom();
  const answer = (endsInMs: number) => synced(1).with(0, [1, 0, 2, 1, 0, 0, endsInMs]);
  room.open(new Recorder());
  await node.answer(answer(500));
  const endsAt = node.clock.elapsedMs() + 500;
  assert(node.due.delete(room));
  assertEquals([await told(null), room.endsAt], ["0", endsAt]);
  assert(node.due.delete(room));
  assertEquals([await told(answer(-1)), room.endsAt, node.due.size], ["0", Infinity, 0]);
});

/** The state of rooms in the client, against a server that is played object by object. */
import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { ParleyError, type StateChange } from "../../handlers/client/client.js";
import { Inbox } from "../support/inbox.ts";
import { range } from "../support/v1.ts";
import { FakeClock, type Json } from "./fake_server.ts";
import { assertCode, chat, error, joined, play, type Stage, welcome } from "./stage.ts";

const entry = (key: string, value: unknown, rev: number) => ({
  key,
  value,
  sender: "Bob",
  time: 7,
  rev,
});
const state = (rev: number, entries: Json[], more: Json = {}): Json => ({
  type: "state",
  room: "lobby",
  epoch: "e",
  rev,
  entries,
  ...more,
});
const set = (rev: number, key: string, value: unknown, more: Json = {}): Json => ({
  type: "set",
  room: "lobby",
  ...entry(key, value, rev),
  ...more,
});
const ack = (id: unknown, rev: number, more: Json = {}): Json => ({
  type: "ack",
  id,
  room: "lobby",
  epoch: "e",
  rev,
  ...more,
});

/** Ann in the lobby with its state, which is `entries` at `rev`; what it says that it got is read. */
async function watch(stage: Stage, rev: number, entries: Json[]) {
  const changes = new Inbox<StateChange>("a change of the state");
  const ann = await stage.ann({ state: true, onState: (change) => changes.push(change) });
  ann.peer.say(joined("Ann"), state(rev, entries));
  await ann.heard.next();
  assertEquals((await changes.next()).entries.length, entries.length);
  assertEquals(await ann.peer.next(), { type: "got", room: "lobby", rev });
  return { ...ann, changes };
}

play("state, every and since are asked for only with the option", async (stage) => {
  const { peer } = await stage.ann();
  assertEquals(peer.url.search, "");
  const paced = stage.connect({ state: { every: 100 } });
  const other = await stage.server.accept();
  assertEquals(other.url.search, "?state=1&every=100");
  paced.client.listen("ops");
  assertEquals(await other.next(), { type: "listen", room: "ops", state: true, every: 100 });
});

play(
  "client.state() is the map of a room, live, and entry() tells who set a key",
  async (stage) => {
    const { client, peer, changes } = await watch(stage, 2, [
      entry("a", 1, 1),
      entry("b/c", [2], 2),
    ]);
    const map = client.state();
    assertEquals([...map], [["a", 1], ["b/c", [2]]]);
    assertEquals(client.entry("b/c"), entry("b/c", [2], 2));
    peer.say(set(3, "a", 5), set(4, "b/c", null), set(5, "d", false));
    for (const rev of [3, 4, 5]) assertEquals((await changes.next()).rev, rev);
    assertEquals([...map], [["a", 5], ["d", false]]);
    assertEquals([client.entry("a")?.rev, client.entry("b/c")], [3, undefined]);
    assertStrictEquals(client.state("lobby"), map);
    assertEquals(client.state("elsewhere").size, 0);
  },
);

play("the parts of a long state are applied together", async (stage) => {
  const { client, peer, changes } = await watch(stage, 2, [entry("a", 1, 1), entry("b", 2, 2)]);
  peer.say(state(9, [entry("c", 3, 8)], { more: true }));
  peer.say(chat(6));
  peer.say(state(9, [entry("d", 4, 9)]));
  const { entries, rev } = await changes.next();
  assertEquals(entries.map(({ key, value }) => [key, value]), [
    ["c", 3],
    ["d", 4],
    // A whole state is without them.
    ["a", null],
    ["b", null],
  ]);
  assertEquals([rev, [...client.state().keys()]], [9, ["c", "d"]]);
});

play("a state of what changed is applied on top, and removes what is gone", async (stage) => {
  const { client, peer, changes } = await watch(stage, 2, [entry("a", 1, 1), entry("b", 2, 2)]);
  peer.say(state(9, [entry("a", null, 8), entry("c", 3, 9)], { since: 2 }));
  assertEquals((await changes.next()).entries.length, 2);
  assertEquals([...client.state()], [["b", 2], ["c", 3]]);
});

play(
  "after a cut the state goes on where it was applied, whatever came of a next part",
  async (stage) => {
    using clock = new FakeClock();
    const { client, heard, peer, changes } = await watch(stage, 2, [entry("a", 1, 1)]);
    peer.say(set(3, "b", 2), state(9, [entry("x", 1, 9)], { more: true, since: 3 }));
    await changes.next();
    client.listen("ops");
    await peer.next();
    await peer.cut();
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    clock.advance(await clock.timeouts.next());
    const again = await stage.server.accept();
    assertEquals(again.url.search, "?after=e%3A5&state=1&since=e%3A3");
    assertEquals((await again.some(2))[1], { type: "listen", room: "ops", state: true });
    again.say(welcome({ recovered: true }), state(4, [entry("a", 9, 4)], { since: 3 }));
    await changes.next();
    assertEquals([...client.state()], [["a", 9], ["b", 2]]);
  },
);

play("a hole in the state is filled by coming back, a repeat is nothing", async (stage) => {
  const { peer, changes } = await watch(stage, 2, [entry("a", 1, 1)]);
  peer.say(set(2, "a", "old"), set(3, "a", 3), set(5, "a", 5));
  assertEquals((await changes.next()).rev, 3);
  const again = await stage.server.accept();
  assertEquals(again.url.searchParams.get("since"), "e:3");
  assertEquals(changes.size, 0);
});

play("what the client got is said at first and each 16 kB, after it was applied", async (stage) => {
  const { client, peer } = await watch(stage, 1, []);
  const seen: number[] = [];
  const long = "x".repeat(1_000);
  for (const rev of range(2, 60)) peer.say(set(rev, "a", long));
  while (seen.length < 3) {
    const { type, rev } = await peer.next();
    assertEquals(type, "got");
    seen.push(rev as number);
  }
  assertEquals(client.entry("a")!.rev >= seen[2], true);
  for (const [before, after] of [[1, seen[0]], [seen[0], seen[1]], [seen[1], seen[2]]]) {
    assertEquals(after - before, 16);
  }
});

play("set() resolves with the place of the change", async (stage) => {
  const { client, peer } = await stage.ann();
  const first = client.set("a", { x: 1 }, { bind: true, ttl: 60, if: 0 });
  const second = client.set("a", null);
  const [one, two] = await peer.some(2);
  assertEquals(one, {
    ...{ type: "set", room: "lobby", id: "1", key: "a", value: { x: 1 } },
    ...{ bind: true, ttl: 60, if: 0 },
  });
  assertEquals(two, { type: "set", room: "lobby", id: "2", key: "a", value: null });
  peer.say(ack("2", 8), ack("1", 7));
  assertEquals(await first, { room: "lobby", epoch: "e", rev: 7 });
  assertEquals(await second, { room: "lobby", epoch: "e", rev: 8 });
});

play("set() rejects with the server's code, and a conflict with the key's rev", async (stage) => {
  const { client, peer } = await stage.ann();
  const taken = client.set("lock", "Ann", { if: 0 });
  const bad = client.set("a//b", 1);
  await peer.some(2);
  peer.say(error("rev_conflict", { id: "1", rev: 4 }), error("bad_state_key", { id: "2" }));
  const { code, rev, room } = await assertRejects(() => taken, ParleyError);
  assertEquals([code, rev, room], ["rev_conflict", 4, "lobby"]);
  await assertCode(bad, "bad_state_key");
  await assertCode(client.set("a", 1n), "bad_message");
  await assertCode(client.set("a", 1, { room: "elsewhere" }), "not_joined");
});

play(
  "while it waits, a set gives way to a later one of its key, but not for an if",
  async (stage) => {
    const { client, heard, peer } = await stage.ann();
    client.set("flying", 0);
    await peer.next();
    await peer.cut();
    await heard.next();
    const promises = [
      client.set("a", 1),
      client.set("a", 2),
      client.set("b", 1),
      client.set("a", 3, { if: 7 }),
      client.set("a", 4),
      client.set("a", 5, { bind: true }),
      client.set("flying", 1),
    ];
    client.send("text");
    const again = await stage.back(heard);
    const sent = await again.some(6);
    assertEquals(sent.map(({ key, value, message }) => [key ?? message, value]), [
      ["a", 2],
      ["b", 1],
      ["a", 3],
      ["a", 5],
      ["flying", 1],
      ["text", undefined],
    ]);
    assertEquals(sent[3].bind, true);
    again.say(...sent.slice(0, 5).map(({ id }, index) => ack(id, 10 + index)));
    const revs = (await Promise.all(promises)).map(({ rev }) => rev);
    assertEquals(revs, [10, 10, 11, 12, 13, 13, 14]);
  },
);

play(
  "the answer to one set of a key leaves the next ones giving way to each other",
  async (stage) => {
    using clock = new FakeClock();
    const { client, peer } = await stage.ann();
    const first = client.set("a", 0);
    const text = client.send("too much");
    const [{ id }, refused] = await peer.some(2);
    peer.say(error("rate_limited", { id: refused.id, retry: 50 }));
    assertEquals(await clock.timeouts.next(), 50);
    const rest = [client.set("a", 1)];
    peer.say(ack(id, 10));
    await first;
    rest.push(client.set("a", 2));
    clock.advance(50);
    const sent = await peer.some(2);
    assertEquals(sent.map(({ message, value }) => message ?? value), ["too much", 2]);
    peer.say(ack(sent[0].id, 0, { seq: 6 }), ack(sent[1].id, 11));
    await text;
    assertEquals((await Promise.all(rest)).map(({ rev }) => rev), [11, 11]);
  },
);

play("online each set of a key goes out", async (stage) => {
  const { client, peer } = await stage.ann();
  for (const value of range(1, 3)) client.set("a", value);
  assertEquals((await peer.some(3)).map(({ value }) => value), [1, 2, 3]);
});

play("a set without an answer is repeated, and after a new epoch made anew", async (stage) => {
  const { client, heard, peer } = await stage.ann();
  const plain = client.set("a", 1);
  const locked = client.set("b", 1, { if: 0 });
  await peer.some(2);
  await peer.cut();
  await heard.next();
  const again = await stage.back(heard);
  assertEquals((await again.some(2)).map(({ id }) => id), ["1", "2"]);
  again.say(chat(6));
  await again.cut();
  const other = await stage.server.accept();
  await other.next();
  other.say(welcome({ epoch: "f", seq: 0, recovered: false }));
  const { id, key } = await other.next();
  assertEquals([id, key], ["3", "a"]);
  await assertCode(locked, "unknown");
  other.say(ack("3", 1, { epoch: "f" }));
  assertEquals((await plain).epoch, "f");
});

play("bound keys are set again after a cut and in a new epoch, others are not", async (stage) => {
  const { client, heard, peer, changes } = await watch(stage, 0, []);
  const sets = ["mine", "taken", "released"].map((key) => client.set(key, 1, { bind: true }));
  client.set("kept", 1);
  const sent = await peer.some(4);
  peer.say(
    ...sent.flatMap(({ id, key }, index) => [set(index + 1, `${key}`, 1), ack(id, index + 1)]),
  );
  await Promise.all(sets);
  // Somebody else sets one of them, and the client releases another.
  client.set("released", 2);
  const { id } = await peer.next();
  peer.say(set(5, "taken", "Bob's"), set(6, "released", 2), ack(id, 6));
  while ((await changes.next()).rev < 6);
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.back(heard);
  const repeat = await again.next();
  assertEquals([repeat.key, repeat.value, repeat.bind], ["mine", 1, true]);
  again.say(state(7, [entry("mine", null, 7)], { since: 6 }), set(8, "mine", 1), ack(repeat.id, 8));
  assertEquals((await again.next()).type, "got");
  again.say(welcome({ epoch: "f", seq: 0, recovered: false }), state(0, [], { epoch: "f" }));
  const anew = await again.next();
  assertEquals([anew.key, anew.value], ["mine", 1]);
  again.say(ack(anew.id, 1, { epoch: "f" }));
  client.leave();
  assertEquals((await again.next()).type, "leave");
});

play("a lock comes back only if it is free, or still the client's own", async (stage) => {
  const { client, heard, peer } = await stage.ann();
  const locks = ["free", "mine", "theirs", "ended"].map((key) =>
    client.set(key, "Ann", { bind: true, if: 0 })
  );
  for (const { id } of await peer.some(4)) peer.say(ack(id, Number(id)));
  await Promise.all(locks);
  await peer.cut();
  await heard.next();
  const again = await stage.back(heard);
  const sent = await again.some(4);
  assertEquals(sent.map(({ key, if: condition }) => [key, condition]), [
    ["free", 0],
    ["mine", 0],
    ["theirs", 0],
    ["ended", 0],
  ]);
  const [free, mine, theirs, ended] = sent.map(({ id }) => id);
  again.say(
    ack(free, 5),
    error("rev_conflict", { id: mine, rev: 2 }),
    error("rev_conflict", { id: theirs, rev: 6 }),
    error("rev_conflict", { id: ended, rev: 4 }),
  );
  const repeats = await again.some(2);
  assertEquals(repeats.map(({ key, if: condition }) => [key, condition]), [["mine", 2], [
    "ended",
    4,
  ]]);
  // The old connection has ended in between, and its key with it.
  again.say(error("rev_conflict", { id: repeats[1].id, rev: 0 }));
  const last = await again.next();
  assertEquals([last.key, last.if], ["ended", 0]);
  // A cut and a new epoch later it is still wanted: nobody has it there.
  await again.cut();
  assertEquals(await heard.next(), ["welcome", 5]);
  const [kind, reported] = await heard.next();
  assertEquals([kind, (reported as Json).code], ["error", "rev_conflict"]);
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const other = await stage.server.accept();
  await other.next();
  other.say(welcome({ epoch: "f", seq: 0, recovered: false }));
  const wanted = new Set<unknown>();
  while (wanted.size < 3) {
    const { key, if: condition } = await other.next();
    assertEquals(condition, 0);
    wanted.add(key);
  }
  assertEquals(wanted, new Set(["mine", "ended", "free"]));
});

/**
 * What every engine must do, whatever it is made of: the suite behind `handlers/engine/engine.ts`.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Draft, Engine, Host, IdempotencyKey, Outcome } from "../../handlers/engine/engine.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import { MEMBER_EVENTS } from "../../handlers/engine/member_events.ts";
import { BANS_ROOM, EVENTS_ROOM } from "../../handlers/protocol/parse.ts";
import type { Cursor } from "../../handlers/protocol/position.ts";
import { Random } from "../support/random.ts";
import { eventually, granted, hear, people, Recorder } from "../support/recorder.ts";
import { range } from "../support/v1.ts";
import { chain, type MaybePromise } from "../../handlers/util/maybe_promise.ts";

export { range };

/** Engines that share one system: two or more nodes, or one engine twice. */
export interface Cluster {
  nodes: Engine[];
  /** Lets so many ms go by; without it, time goes by itself. */
  pass?: (ms: number) => void;
  /** Ends what the engines themselves do not. */
  stop?: () => Promise<void>;
}

/** Limits that no test meets by chance. */
export const ROOMY: HistoryLimits = {
  historySize: 1_000,
  historySeconds: 3_600,
  historyMb: 64,
  maxRooms: 1_000,
};

const ROOM = "room.one:A-1_z";
const SESSION = "a session of 16+";

/** An engine's name, what builds a system of its own for each test, and what registers tests. */
export type System = [
  name: string,
  make: (limits: HistoryLimits) => Promise<Cluster> | Cluster,
  register?: (name: string, fn: () => Promise<void>) => void,
];

/** Gives what registers one statement of a suite as a test. */
export function suite(subject: string, [name, make, register = Deno.test]: System) {
  return (
    statement: string,
    fn: (nodes: Engine[], pass?: (ms: number) => void) => Promise<void>,
    limits: Partial<HistoryLimits> = {},
  ): void =>
    register(`${name} ${subject}: ${statement}`, async () => {
      const { nodes, pass, stop } = await make({ ...ROOMY, ...limits });
      try {
        await fn(nodes, pass);
      } finally {
        for (const node of new Set(nodes)) await node.close();
        await stop?.();
      }
    });
}

/** Registers the suite for an engine. */
export function engineContract(...system: System): void {
  const contract = suite("engine", system);

  contract("numbers a room's messages 1, 2, 3 … whatever node they come from", async (nodes) => {
    const places = [];
    for (let i = 0; i < 6; i++) places.push(await granted(say(nodes[i % nodes.length], `${i}`)));
    assertEquals(places.map((place) => place.seq), [1, 2, 3, 4, 5, 6]);
    assertEquals(new Set(places.map((place) => place.epoch)).size, 1);
    assertEquals((await granted(nodes[0].publish("other", draft("x")))).seq, 1);
  });

  contract("every host on every node hears all, in one order, gap-free", async (nodes) => {
    const recorders = await hearAll(nodes);
    const outcomes: MaybePromise<Outcome>[] = [];
    // Only what one sender says on one node has an order: two senders a node.
    const senders = 2 * nodes.length;
    for (let i = 0; i < 400; i++) {
      outcomes.push(say(nodes[i % nodes.length], `${i}`, `p${i % senders}`));
      if (i % 50 === 49) await outcomes[i - 25];
    }
    const places = await Promise.all(outcomes.map(granted));
    for (const recorder of recorders) {
      await recorder.until(({ chats }) => chats.length >= 400);
      assertEquals(recorder.chats.map((chat) => chat.seq), range(1, 400));
      assertEquals(recorder.events.length, 400);
      assertEquals(recorder.chats, recorders[0].chats);
      for (const [i, place] of places.entries()) {
        assertEquals(recorder.messages[place.seq - 1], `${i}`);
      }
      for (let p = 0; p < senders; p++) {
        const own = recorder.chats.filter((chat) => chat.sender === `p${p}`);
        const numbers = own.map((chat) => Number(chat.message));
        assertEquals(numbers, numbers.toSorted((a, b) => a - b));
      }
    }
  });

  contract("one caller's calls take effect in the order they were made", async (nodes) => {
    for (const node of new Set(nodes)) {
      const room = `in-order-${nodes.indexOf(node)}`;
      const recorders = await hearAll(nodes, room);
      const calls = [
        node.join(room, "m1", "Ann"),
        node.publish(room, draft("one")),
        node.relay(room, { type: "binary", bytes: new Uint8Array([1]), from: "m1" }),
        node.publish(room, draft("two")),
        node.join(room, "m1", "Anna"),
        node.relay(room, { type: "binary", bytes: new Uint8Array([2]), from: "m1" }),
        node.publish(room, draft("three")),
        node.leave(room, "m1"),
        node.publish(room, draft("four")),
      ];
      await Promise.all(calls);
      for (const recorder of recorders) {
        await recorder.until(({ events }) => events.length >= calls.length);
        const told = recorder.events.map((event) =>
          event.type === "chat"
            ? event.chat.message
            : event.type === "status"
            ? event.event
            : event.type === "binary"
            ? event.bytes[0]
            : event
        );
        assertEquals(told, ["join", "one", 1, "two", "join", 2, "three", "leave", "four"]);
      }
    }
  });

  contract("a message arrives as it was sent", async (nodes) => {
    const recorders = await hearAll(nodes);
    const drafts: Draft[] = [
      { sender: "Ann", message: '""' },
      { sender: "12 Bob 3", message: "12 3" },
      { sender: "Zoë 😀 \"'{}", message: '{"a":[1,"ü\\u0000😀",null]}' },
      { sender: "Eve", message: JSON.stringify("x".repeat(200_000)) },
    ];
    const before = Date.now();
    for (const draft of drafts) await granted(nodes[0].publish(ROOM, draft));
    for (const recorder of recorders) {
      await recorder.until(({ chats }) => chats.length === drafts.length);
      assertEquals(recorder.chats.map(({ sender, message }) => ({ sender, message })), drafts);
      assertEquals((await granted(nodes.at(-1)!.read(ROOM))).chats, recorder.chats);
      const [{ time }] = recorder.chats;
      assert(Math.abs(time - before) < 60_000, `${time} is not near ${before}`);
    }
  });

  contract("events begin right behind the head that host() answers with", async (nodes) => {
    const outcomes: MaybePromise<Outcome>[] = [];
    const send = (count: number) => {
      for (let i = 0; i < count; i++) outcomes.push(say(nodes[0], `${outcomes.length + 1}`));
    };
    const recorder = new Recorder();
    let isOpen = false;
    const host: Host = {
      subscriberCount: 1,
      deliver(event) {
        assert(isOpen, "an event came before the head");
        recorder.deliver(event);
      },
    };
    send(100);
    const opened = chain(nodes.at(-1)!.host(ROOM, host), (head) => {
      isOpen = true;
      return head;
    });
    send(100);
    const head = await granted(opened);
    await outcomes.at(-1);
    send(100);
    await recorder.until(({ chats }) => chats.at(-1)?.seq === 300);
    assertEquals(recorder.messages, range(head.seq + 1, 300).map(String));
    assertEquals(recorder.events.length, 300 - head.seq);
  });

  contract("read() gives what is kept behind a place, on any node", async (nodes) => {
    const [one] = nodes;
    const { epoch } = await granted(say(one, "1"));
    for (let i = 2; i <= 5; i++) await granted(say(one, `${i}`));
    for (const node of nodes) {
      const all = await granted(node.read(ROOM));
      assertEquals([all.epoch, all.seq], [epoch, 5]);
      assertEquals(all.chats.map((chat) => chat.message), ["1", "2", "3", "4", "5"]);
      assertEquals(all.chats.map((chat) => chat.seq), [1, 2, 3, 4, 5]);
      const seqsAfter = async (after: Cursor) =>
        (await granted(node.read(ROOM, after))).chats.map((chat) => chat.seq);
      assertEquals(await seqsAfter({ epoch, seq: 3 }), [4, 5]);
      assertEquals(await seqsAfter({ epoch, seq: 5 }), []);
      assertEquals(await seqsAfter({ epoch, seq: 6 }), [1, 2, 3, 4, 5]);
      assertEquals(await seqsAfter({ epoch: "another", seq: 3 }), [1, 2, 3, 4, 5]);
    }
  });

  contract("a room that nobody knows has a fresh epoch and nothing kept", async ([node]) => {
    const one = await granted(node.read("nobody"));
    const two = await granted(node.read("nobody"));
    assertEquals([one.seq, one.chats], [0, []]);
    assertNotEquals(one.epoch, two.epoch);
  });

  contract("keeps the newest HISTORY_SIZE messages", async (nodes) => {
    for (let i = 1; i <= 8; i++) await granted(say(nodes[i % nodes.length], `${i}`));
    const span = await granted(nodes[0].read(ROOM));
    assertEquals(span.seq, 8);
    assertEquals(span.chats.map((chat) => chat.seq), [6, 7, 8]);
  }, { historySize: 3 });

  contract("numbers and hands out without keeping, where HISTORY_SIZE is 0", async (nodes) => {
    const recorders = await hearAll(nodes);
    for (let i = 1; i <= 3; i++) await granted(say(nodes[i % nodes.length], `${i}`));
    for (const recorder of recorders) await recorder.until(({ chats }) => chats.length === 3);
    const { seq, chats } = await granted(nodes[0].read(ROOM));
    assertEquals({ seq, chats }, { seq: 3, chats: [] });
  }, { historySize: 0 });

  contract(
    "keeps no message longer than HISTORY_SECONDS; the numbers go on",
    async (nodes, pass) => {
      await hearAll(nodes);
      const read = async () => await granted(nodes[0].read(ROOM));
      // A machine may be too busy to look that soon: then it is said again.
      const { epoch, seq } = await eventually(async () => {
        const place = await granted(say(nodes[0], "old"));
        return { ...place, kept: (await read()).chats.length };
      }, ({ kept }) => kept > 0);
      pass?.(250);
      const span = await eventually(read, ({ chats }) => chats.length === 0);
      assertEquals([span.epoch, span.seq], [epoch, seq]);
      assertEquals(await say(nodes[0], "new"), { epoch, seq: seq + 1 });
    },
    { historySeconds: 0.2 },
  );

  contract(
    "keeps of each room what the first rule that fits its name says",
    async (nodes, pass) => {
      const kept = async (room: string) => {
        for (let i = 1; i <= 5; i++) {
          await granted(nodes[i % nodes.length].publish(room, draft(`${i}`)));
        }
        return (await granted(nodes[0].read(room))).chats.length;
      };
      assertEquals(await kept("user:1"), 4);
      assertEquals(await kept("user:2"), 2);
      assertEquals(await kept("game:1"), 0);
      await eventually(() => kept("usual"), (count) => count === 3);
      pass?.(250);
      const gone = () => granted(nodes[0].read("usual"));
      await eventually(gone, ({ chats }) => chats.length === 0);
      assertEquals((await granted(nodes[0].read("user:1"))).chats.length, 4);
    },
    {
      historySize: 3,
      historySeconds: 0.2,
      roomRules: {
        "user:1": { history: 4, seconds: 60 },
        "user:*": { history: 2, seconds: 60 },
        "game:*": { history: 0 },
      },
    },
  );

  contract("says in _events who comes and goes, a room's events in order", async (nodes) => {
    const [one, two] = [nodes[0], nodes.at(-1)!];
    const recorder = (await hear(one, EVENTS_ROOM)).recorder;
    for (const [member, name] of [["a", "Ann"], ["b", "Bo"]]) {
      assertEquals(await two.join(ROOM, member, name), undefined);
    }
    // Another name is no coming, and who is unknown does not go.
    assertEquals(await two.join(ROOM, "b", "Bob"), undefined);
    two.leave(ROOM, "c");
    two.leave(ROOM, "a");
    await recorder.until(({ chats }) => chats.length === 4);
    two.leave(ROOM, "b");
    await recorder.until(({ chats }) => chats.length === 6);
    const events = recorder.chats.map(({ message }) => JSON.parse(message));
    const { n } = events[0];
    assertEquals(events, [
      { event: "occupied", room: ROOM, n, members: 1 },
      { event: "join", room: ROOM, n: n + 1, name: "Ann", members: 1 },
      { event: "join", room: ROOM, n: n + 2, name: "Bo", members: 2 },
      { event: "leave", room: ROOM, n: n + 3, name: "Ann", members: 1 },
      { event: "leave", room: ROOM, n: n + 4, name: "Bob", members: 0 },
      { event: "vacated", room: ROOM, n: n + 5, members: 0 },
    ]);
    // Nobody uses the room any more: when it comes back its numbers go on.
    assertEquals(await one.join(ROOM, "a", "Ann"), undefined);
    await recorder.until(({ chats }) => chats.length === 8);
    assert(JSON.parse(recorder.chats[6].message).n > n + 5);
    const span = await granted(two.read(EVENTS_ROOM));
    assertEquals(span.chats.map(({ seq }) => seq), range(1, 8));
  }, { events: MEMBER_EVENTS, historySize: 1 });

  contract("says in _events what EVENTS asks for, and nothing else", async (nodes) => {
    const recorder = (await hear(nodes[0], EVENTS_ROOM)).recorder;
    for (const member of ["a", "b"]) await nodes.at(-1)!.join(ROOM, member, "Ann");
    for (const member of ["a", "b"]) nodes.at(-1)!.leave(ROOM, member);
    await recorder.until(({ chats }) => chats.length === 2);
    const events = recorder.chats.map(({ message }) => JSON.parse(message));
    assertEquals(events.map(({ event }) => event), ["occupied", "vacated"]);
    assertEquals(events[1].n, events[0].n + 1);
  }, { events: ["vacated", "occupied"] });

  contract("bounds the state of a room, but not that of the server's own", async (nodes) => {
    const set = (room: string, i: number, value: unknown) =>
      nodes[i % nodes.length].set(room, { key: `${i}`, value: JSON.stringify(value), sender: "s" });
    for (const i of range(1, 9)) await granted(set(BANS_ROOM, i, "x".repeat(90)));
    await granted(set(ROOM, 1, 1));
    assertEquals(await set(ROOM, 1, "x".repeat(200)), { refused: "too_many_keys" });
    await granted(set(ROOM, 2, 1));
    assertEquals(await set(ROOM, 3, 1), { refused: "too_many_keys" });
    // By a rule of the room's own.
    for (const [room, keys] of [["few", 1], ["many", 3]] as const) {
      for (const i of range(1, keys)) await granted(set(room, i, 1));
      assertEquals(await set(room, keys + 1, 1), { refused: "too_many_keys" });
    }
  }, { maxKeys: 2, maxStateBytes: 200, roomRules: { few: { keys: 1 }, "m*": { keys: 3 } } });

  contract("an empty room keeps its history, its numbers and its epoch", async (nodes) => {
    const { recorder, head } = await hear(nodes[0], ROOM);
    const { epoch } = await granted(say(nodes[0], "1"));
    nodes[0].release(ROOM);
    assertEquals(await say(nodes[0], "2"), { epoch, seq: 2 });
    const again = await hear(nodes.at(-1)!, ROOM);
    assertEquals(again.head, { epoch: head.epoch, seq: 2, rev: 0, members: 0 });
    await granted(say(nodes[0], "3"));
    await again.recorder.until(({ messages }) => messages.length === 1);
    assertEquals(again.recorder.messages, ["3"]);
    assert(!recorder.messages.includes("2") && !recorder.messages.includes("3"));
  });

  contract("a released room can be hosted again in the same turn", async (nodes) => {
    const first = new Recorder();
    const opening = nodes[0].host(ROOM, first);
    nodes[0].release(ROOM);
    const second = hear(nodes[0], ROOM);
    await opening;
    const { recorder, head } = await second;
    assertEquals(head.seq, 0);
    await granted(say(nodes.at(-1)!, "1"));
    await recorder.until(({ messages }) => messages.length === 1);
    assertEquals(first.events, []);
  });

  contract("a repeat of an id gets the first place and is published once", async (nodes) => {
    const recorders = await hearAll(nodes);
    const repeat = () =>
      nodes.map((node) => node.publish(ROOM, draft("once", { session: SESSION, id: "a" })));
    await granted(say(nodes[0], "before"));
    const places = [...await Promise.all(repeat()), ...await Promise.all(repeat())];
    await granted(say(nodes[0], "after"));
    for (const place of places) assertEquals((await granted(place)).seq, 2);
    for (const recorder of recorders) {
      await recorder.until(({ chats }) => chats.length >= 3);
      assertEquals(recorder.messages, ["before", "once", "after"]);
    }
  });

  contract("an id counts in its room and session only", async ([node]) => {
    const one = await granted(node.publish(ROOM, draft("1", { session: SESSION, id: "a" })));
    const session = await granted(
      node.publish(ROOM, draft("2", { session: SESSION + "a", id: "" })),
    );
    const room = await granted(node.publish("other", draft("3", { session: SESSION, id: "a" })));
    assertEquals([one.seq, session.seq, room.seq], [1, 2, 1]);
  });

  contract("tells texts apart that UTF-8 cannot carry, and gives them back", async (nodes) => {
    const texts = ["\ud800", "\udc00 a", "\ufffd", "\x01", '\x01"\ud800"'];
    const [recorder] = await hearAll(nodes);
    const places: Cursor[] = [];
    for (const node of [nodes[0], nodes.at(-1)!]) {
      for (const [index, text] of texts.entries()) {
        const key = { session: `${SESSION}${texts.at(-1 - index)}`, id: text };
        places.push(await granted(node.publish(ROOM, draft(text, key, text))));
        const change = { key: `${index}`, value: text, sender: text, id: key };
        assertEquals((await granted(node.set(ROOM, change))).rev, index + 1);
      }
    }
    const seqs = range(1, texts.length);
    assertEquals(places.map(({ seq }) => seq), [...seqs, ...seqs]);
    await recorder.until(({ events }) => events.length === 2 * texts.length);
    for (const chats of [recorder.chats, (await granted(nodes[0].read(ROOM))).chats]) {
      assertEquals(chats.map(({ message, sender }) => [message, sender]), texts.map((t) => [t, t]));
    }
    const { entries } = await granted(nodes.at(-1)!.state(ROOM));
    assertEquals(entries.map(({ value, sender }) => [value, sender]), texts.map((t) => [t, t]));
    assertEquals(await nodes[0].join(ROOM, "m1", texts[0]), undefined);
    assertEquals(await nodes.at(-1)!.members(ROOM), people(texts[0]));
  });

  contract("a repeat with another digest is a conflict", async (nodes) => {
    const publish = (node: Engine, digest?: string) =>
      node.publish(ROOM, draft("x", { session: SESSION, id: "key", digest }));
    const first = await granted(publish(nodes[0], "d1"));
    for (const node of nodes) {
      assertEquals(await publish(node, "d2"), { refused: "conflict" });
      assertEquals(await publish(node), { refused: "conflict" });
      assertEquals(await publish(node, "d1"), first);
    }
    assertEquals((await granted(nodes[0].read(ROOM))).seq, 1);
  });

  contract("remembers the last 1,000 ids of a session, and all with a digest", async (nodes) => {
    const publish = (node: Engine, id: number, digest?: string) => {
      const session = `${SESSION}${digest}`;
      return node.publish(ROOM, draft("x", { session, id: `${id}`, digest }));
    };
    for (const digest of [undefined, "digest"]) {
      const first = await granted(publish(nodes[0], 0, digest));
      const places = await Promise.all(range(1, 1_000).map((id) => publish(nodes[0], id, digest)));
      const last = nodes.at(-1)!;
      assertEquals(await publish(last, 1, digest), await granted(places[0]));
      assertEquals(await publish(last, 1_000, digest), await granted(places[999]));
      const again = await granted(publish(last, 0, digest));
      assertEquals(again.seq, digest ? first.seq : first.seq + 1_001);
    }
  });

  contract(
    "hosts hear who joins, is renamed and leaves, with the count over all",
    async (nodes) => {
      const recorders = await hearAll(nodes);
      const [one, two] = [nodes[0], nodes.at(-1)!];
      assertEquals(await one.join(ROOM, "m1", "Bob 1 x"), undefined);
      assertEquals(await two.join(ROOM, "m2", "Zoë 😀"), undefined);
      assertEquals(await one.join(ROOM, "m1", "Ann"), undefined);
      assertEquals(await two.join(ROOM, "m2", "Zoë 😀"), undefined);
      for (const node of nodes) {
        assertEquals(await node.members(ROOM), people("Ann", "Zoë 😀"));
        assertEquals(await node.members("other"), people());
      }
      one.leave(ROOM, "nobody");
      one.leave("other", "m1");
      one.leave(ROOM, "m1");
      two.leave(ROOM, "m2");
      const missing = { user: undefined, was: undefined, to: undefined };
      const status = { type: "status" as const, ...missing };
      const leave = [
        { ...status, event: "leave" as const, name: "Ann", members: 1 },
        { ...status, event: "leave" as const, name: "Zoë 😀", members: 0 },
      ];
      for (const recorder of recorders) {
        await recorder.until(({ events }) => events.length >= 6);
        const told = recorder.events.map((event) => ({ ...missing, ...event }));
        assertEquals(told.slice(0, 4), [
          { ...status, event: "join", name: "Bob 1 x", members: 1 },
          { ...status, event: "join", name: "Zoë 😀", members: 2 },
          { ...status, event: "join", name: "Ann", was: "Bob 1 x", members: 2 },
          { ...status, event: "join", name: "Zoë 😀", was: "Zoë 😀", members: 2 },
        ]);
        // Two nodes' calls have no order between them.
        const [first] = told.slice(4);
        if (first.type === "status" && first.name === "Ann") assertEquals(told.slice(4), leave);
        else {
          assertEquals(told.slice(4), [{ ...leave[1], members: 1 }, { ...leave[0], members: 0 }]);
        }
      }
      const { head } = await hear(one, "with-members");
      assertEquals(head.members, 0);
    },
  );

  contract("a user's sockets are one person: the first joins, the last leaves", async (nodes) => {
    const recorders = await hearAll(nodes);
    const [one, two] = [nodes[0], nodes.at(-1)!];
    const events = (await hear(two, EVENTS_ROOM)).recorder;
    const user = "user 1 =é\ud800";
    assertEquals(await one.join(ROOM, "m1", "Ann", user), undefined);
    assertEquals(await two.join(ROOM, "m2", "Ann", user), undefined);
    assertEquals(await one.join(ROOM, "m3", "Ann"), undefined);
    assertEquals(await two.join(ROOM, "m4", "Zoë", "u2"), undefined);
    assertEquals(await two.join(ROOM, "m2", "Anna", user), undefined);
    const ann = { name: "Anna", user, sockets: 2 };
    const others = [{ name: "Ann", sockets: 1 }, { name: "Zoë", user: "u2", sockets: 1 }];
    for (const node of nodes) {
      const members = { members: [others[0], ann, others[1]], count: 3 };
      assertEquals(await node.members(ROOM), members);
      const [summary] = await eventually(
        () => granted(node.rooms("a", 1)),
        ({ length }) => length === 1,
      );
      assertEquals(summary.members, 3);
    }
    assertEquals(await one.join(ROOM, "m5", "A", user), undefined);
    one.leave(ROOM, "m5");
    one.leave(ROOM, "m1");
    await one.members(ROOM);
    two.leave(ROOM, "m2");
    await two.members(ROOM);
    one.leave(ROOM, "m3");
    await one.members(ROOM);
    two.leave(ROOM, "m4");
    assertEquals(await two.members(ROOM), people());
    for (const recorder of recorders) {
      await recorder.until(({ events }) => events.length >= 9);
      const told = recorder.events.map((event) => {
        assert(event.type === "status");
        const { event: what, name, user, was = "", members, to = "" } = event;
        return [what, name, user, was, members, to];
      });
      assertEquals(told, [
        ["join", "Ann", user, "", 1, ""],
        ["join", "Ann", user, "", 1, "m2"],
        ["join", "Ann", undefined, "", 2, ""],
        ["join", "Zoë", "u2", "", 3, ""],
        ["join", "Anna", user, "Ann", 3, ""],
        ["join", "A", user, "Anna", 3, ""],
        ["leave", "A", user, "", 2, ""],
        ["leave", "Ann", undefined, "", 1, ""],
        ["leave", "Zoë", "u2", "", 0, ""],
      ]);
    }
    await events.until(({ chats }) => chats.length === 6);
    const said = events.chats.map(({ message }) => JSON.parse(message));
    assertEquals(said.map(({ event, name, user, members }) => [event, name, user, members]), [
      ["join", "Ann", user, 1],
      ["join", "Ann", undefined, 2],
      ["join", "Zoë", "u2", 3],
      ["leave", "A", user, 2],
      ["leave", "Ann", undefined, 1],
      ["leave", "Zoë", "u2", 0],
    ]);
  }, { events: ["join", "leave"] });

  contract("knows who is there, whatever order they come and go in", async (nodes) => {
    const random = new Random(1);
    const there = new Map<string, string | undefined>();
    const names = new Map<string, string>();
    for (const step of range(1, 60)) {
      const i = random.below(9);
      const [node, id] = [nodes[i % nodes.length], `m${i}`];
      const user = i % 3 === 0 ? undefined : `u${i % 3}`;
      if (random.chance(0.6)) {
        const name = random.pick(["a", "b"]);
        assertEquals(await node.join(ROOM, id, name, user), undefined);
        there.set(id, user);
        names.set(user ?? id, name);
      } else {
        node.leave(ROOM, id);
        there.delete(id);
        // Its answer comes behind the leaving.
        await node.members(ROOM);
      }
      if (step % 6 > 0) continue;
      const people = [...Map.groupBy(there, ([id, user]) => user ?? id)]
        .map(([person, [[, user], ...more]]) => `${names.get(person)} ${user} ${1 + more.length}`);
      const { members, count } = await granted(nodes[0].members(ROOM));
      const found = members.map(({ name, user, sockets }) => `${name} ${user} ${sockets}`);
      assertEquals([count, found.sort()], [people.length, people.sort()]);
    }
  });

  contract("a node that ends takes a user's sockets along, and no others", async (nodes) => {
    const [one, two] = [nodes[0], nodes.at(-1)!];
    if (one === two) return;
    const { recorder } = await hear(two, ROOM);
    await one.join(ROOM, "m1", "Ann", "u1");
    await one.join(ROOM, "m2", "Ann", "u1");
    await one.join(ROOM, "m3", "Bo", "u2");
    await two.join(ROOM, "m4", "Ann", "u1");
    await one.close();
    const left = (recorder: Recorder) =>
      recorder.events.filter((event) => event.type === "status" && event.event === "leave");
    await recorder.until((recorder) => left(recorder).length > 0);
    const members = { members: [{ name: "Ann", user: "u1", sockets: 1 }], count: 1 };
    assertEquals(await two.members(ROOM), members);
    two.leave(ROOM, "m4");
    await recorder.until((recorder) => left(recorder).length > 1);
    assertEquals(left(recorder).map((event) => event.type === "status" && event.user), [
      "u2",
      "u1",
    ]);
    assertEquals(await two.members(ROOM), people());
  });

  contract("a new host learns how many have joined", async (nodes) => {
    await hear(nodes[0], ROOM);
    await nodes[0].join(ROOM, "m1", "Ann");
    await nodes[0].join(ROOM, "m2", "Ann");
    if (nodes.at(-1) === nodes[0]) nodes[0].release(ROOM);
    const { head } = await hear(nodes.at(-1)!, ROOM);
    assertEquals(head.members, 2);
    assertEquals(await nodes.at(-1)!.members(ROOM), people("Ann", "Ann"));
  });

  contract("names at most 1,000 members, sorted, and counts all", async (nodes) => {
    await hearAll(nodes);
    await Promise.all(
      range(1, 1_100).map((i) => nodes[i % nodes.length].join(ROOM, `m${i}`, `n${i}`)),
    );
    const { members, count } = await granted(nodes[0].members(ROOM));
    assertEquals([members.length, count], [1_000, 1_100]);
    const names = members.map(({ name }) => name);
    assertEquals(names, names.toSorted());
    assertEquals(new Set(names).size, 1_000);
  });

  contract("relays bytes to every host and keeps nothing of them", async (nodes) => {
    const recorders = await hearAll(nodes);
    const bytes = new Uint8Array([0, 255, 32, 10, 128]);
    nodes[0].relay(ROOM, { type: "binary", bytes: bytes, from: "member é" });
    nodes[0].relay(ROOM, { type: "binary", bytes: new Uint8Array(), from: "m2" });
    nodes[0].relay("other", { type: "binary", bytes: bytes, from: "m1" });
    for (const recorder of recorders) {
      await recorder.until(({ events }) => events.length >= 2);
      assertEquals(recorder.events, [
        { type: "binary", bytes, from: "member é" },
        { type: "binary", bytes: new Uint8Array(), from: "m2" },
      ]);
    }
    assertEquals((await granted(nodes[0].read(ROOM))).seq, 0);
  });

  contract(
    "hands notes to every host, in order with the messages, and keeps none",
    async (nodes) => {
      const recorders = await hearAll(nodes);
      const note = (message: string) => ({ time: 7, sender: "Ann \ud83d\ude00 \n", message });
      await granted(nodes[0].publish(ROOM, { sender: "Ann", message: '"a"' }));
      nodes[0].relay(ROOM, { type: "note", note: note('{"typing":true}') });
      await granted(nodes[0].publish(ROOM, { sender: "Ann", message: '"b"' }));
      nodes[0].relay("other", { type: "note", note: note("1") });
      for (const recorder of recorders) {
        await recorder.until(({ events }) => events.length >= 3);
        const [first, second, third, ...more] = recorder.events;
        assertEquals([first.type, third.type, more], ["chat", "chat", []]);
        assertEquals(second, { type: "note", note: note('{"typing":true}') });
      }
      assertEquals((await granted(nodes[0].read(ROOM))).chats.length, 2);
    },
  );

  contract("rooms() lists what is heard on any node, by name, a page at a time", async (nodes) => {
    for (const room of ["c", "a", "b", "B"]) await hear(nodes[0], room, 2);
    const distinct = [...new Set(nodes)];
    for (const node of distinct.slice(1)) await hear(node, "a", 3);
    await granted(nodes[0].publish("b", draft("x")));
    await nodes[0].join("b", "m1", "Ann");
    const listeners = 2 + 3 * (distinct.length - 1);
    for (const node of nodes) {
      const list = (after: string, limit: number) => granted(node.rooms(after, limit));
      const rooms = await eventually(
        () => list("", 10),
        (rooms) => rooms.length === 4 && rooms[1].listeners === listeners,
      );
      assertEquals(rooms, [
        { room: "B", members: 0, listeners: 2, seq: 0 },
        { room: "a", members: 0, listeners, seq: 0 },
        { room: "b", members: 1, listeners: 2, seq: 1 },
        { room: "c", members: 0, listeners: 2, seq: 0 },
      ]);
      assertEquals((await list("a", 1)).map(({ room }) => room), ["b"]);
      assertEquals((await list("c", 10)).map(({ room }) => room), []);
    }
    nodes[0].release("c");
    for (const node of nodes) {
      await eventually(() => granted(node.rooms("b", 10)), (rooms) => rooms.length === 0);
    }
  });

  contract("MAX_ROOMS bounds the rooms that are heard", async ([node]) => {
    const answers = [];
    for (const room of range(1, 9).map((i) => `room-${i}`)) {
      answers.push(await node.host(room, new Recorder()));
    }
    const refused = answers.filter((answer) => "refused" in answer);
    assert(refused.length >= 5 && refused.length < 9, `${refused.length} of 9 refused`);
    for (const answer of refused) assertEquals(answer, { refused: "too_many_rooms" });
    const open = answers.findIndex((answer) => !("refused" in answer)) + 1;
    node.release(`room-${open}`);
    const again = `room-${answers.findIndex((answer) => "refused" in answer) + 1}`;
    const all = await Promise.all(
      [again, `room-${open}`].map((room) => node.host(room, new Recorder())),
    );
    assert(all.some((answer) => !("refused" in answer)), "no room after a release");
  }, { maxRooms: 4 });

  contract("is ready, and gives figures", ([node]) => {
    assertEquals(node.isReady(), true);
    const { rooms, historyBytes } = node.stats();
    assertEquals([rooms, historyBytes], [0, 0]);
    return Promise.resolve();
  });

  contract("a node that ends takes its members along; the others go on", async (nodes) => {
    const [one, two] = [nodes[0], nodes.at(-1)!];
    await hear(one, ROOM);
    await one.join(ROOM, "m1", "Ann");
    if (one === two) return;
    const { recorder } = await hear(two, ROOM);
    await granted(say(two, "1"));
    await one.close();
    await recorder.until(({ events }) => events.at(-1)?.type === "status");
    const [, leave] = recorder.events;
    assertEquals(leave.type === "status" && [leave.event, leave.name, leave.members], [
      "leave",
      "Ann",
      0,
    ]);
    assertEquals(await two.members(ROOM), people());
  });

  contract("what comes after the end is refused or ignored, and does not throw", async ([node]) => {
    await hear(node, ROOM);
    await node.close();
    const answers = [
      say(node, "late"),
      node.read(ROOM),
      node.join(ROOM, "m1", "Ann"),
      node.members(ROOM),
      node.rooms("", 1),
    ];
    node.relay(ROOM, { type: "binary", bytes: new Uint8Array(1), from: "m1" });
    node.leave(ROOM, "m1");
    node.release(ROOM);
    await Promise.all(answers);
    await node.close();
  });
}

/** A message of `sender`. */
export function draft(message: string, key?: IdempotencyKey, sender = "Ann"): Draft {
  return { sender, message, key };
}

function say(node: Engine, message: string, sender?: string): MaybePromise<Outcome> {
  return node.publish(ROOM, draft(message, undefined, sender));
}

/** A host on every node, all open. */
async function hearAll(nodes: Engine[], room = ROOM): Promise<Recorder[]> {
  const opened = [...new Set(nodes)].map((node) => hear(node, room));
  return (await Promise.all(opened)).map(({ recorder }) => recorder);
}

import { assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { pack, toNote, unpackAll } from "../../../handlers/engine/redis/encoding.ts";
import { RoomView, type Synced } from "../../../handlers/engine/redis/view.ts";
import { range } from "../contract.ts";
import { Recorder } from "../../support/recorder.ts";

/** A view at seq 10 of epoch `e`, version 5, with what it delivers and how often it needs a sync. */
function viewAtTen() {
  const recorder = new Recorder();
  const asked = { gaps: 0 };
  const endsInMs: number[] = [];
  const view = new RoomView(recorder, () => {
    asked.gaps++;
    view.expectSync();
  }, (ms) => endsInMs.push(ms));
  view.expectSync();
  view.applySync(synced(10));
  view.resume();
  return { view, recorder, asked, endsInMs };
}

function synced(seq: number, chats: number[] = [], more: Partial<Synced> = {}): Synced {
  const kept = chats.map((seq) => ({ seq, ...toNote(entry(seq)) }));
  return { epoch: "e", seq, rev: 0, members: 2, version: 5, chats: kept, changes: [], ...more };
}

function entry(seq: number): string {
  return `1700000000000 ${pack("Ann")}${seq}`;
}

function chat(seq: number, epoch = "e"): Buffer {
  return Buffer.from(`c${epoch} ${seq} ${entry(seq)}`);
}

function status(version: number, what: string, epoch = "e"): Buffer {
  return Buffer.from(`s${epoch} ${version} 3 ${what}`);
}

function seqsOf(recorder: Recorder): number[] {
  return recorder.chats.map(({ seq }) => seq);
}

Deno.test("pack() and unpackAll() take any text, one behind the other", () => {
  const texts = ["", "Ann", "3 x", "é 😀\n", " "];
  assertEquals(unpackAll(`x${texts.map(pack).join("")}`, 1), texts);
});

Deno.test("toNote() reads an entry of the log", () => {
  const text = `12 ${pack("A 1 b")}{"x": "1 2"}`;
  assertEquals(toNote(text), { time: 12, sender: "A 1 b", message: '{"x": "1 2"}' });
});

Deno.test("RoomView hands out the next message, and each one once", () => {
  const { view, recorder, asked } = viewAtTen();
  for (const seq of [9, 10, 11, 11, 12]) view.push(chat(seq));
  assertEquals(seqsOf(recorder), [11, 12]);
  assertEquals(asked.gaps, 0);
});

Deno.test("RoomView fills a gap before anything newer", () => {
  const { view, recorder, asked } = viewAtTen();
  view.push(chat(11));
  view.push(chat(14));
  view.push(status(6, `j${pack("Bob")}`));
  view.push(chat(15));
  assertEquals([seqsOf(recorder), asked.gaps], [[11], 1]);
  view.applySync(synced(14, [12, 13, 14]));
  view.resume();
  assertEquals(seqsOf(recorder), [11, 12, 13, 14, 15]);
  assertEquals(recorder.events[4].type, "status");
  assertEquals(asked.gaps, 1);
});

Deno.test("RoomView asks again where more was missed while it asked", () => {
  const { view, recorder, asked } = viewAtTen();
  view.push(chat(12));
  view.push(chat(15));
  view.applySync(synced(12, [11, 12]));
  view.resume();
  assertEquals([seqsOf(recorder), asked.gaps], [[11, 12], 2]);
  view.applySync(synced(15, [13, 14, 15]));
  view.resume();
  assertEquals(seqsOf(recorder), range(11, 15));
});

Deno.test("RoomView goes on when the last sync of several has come", () => {
  const { view, recorder } = viewAtTen();
  view.expectSync();
  view.push(chat(12));
  view.applySync(synced(10));
  view.resume();
  view.push(chat(13));
  assertEquals(seqsOf(recorder), []);
  view.applySync(synced(12, [11, 12]));
  view.resume();
  assertEquals(seqsOf(recorder), [11, 12, 13]);
});

Deno.test("RoomView hands out nothing between a sync that failed and the next one", () => {
  const { view, recorder } = viewAtTen();
  view.push(chat(12));
  view.push(status(6, `j${pack("Bob")}`));
  view.endSync(true);
  view.push(chat(11));
  view.push(chat(13));
  assertEquals(recorder.events, []);
  view.expectSync();
  view.push(chat(14));
  view.applySync(synced(13, [11, 12, 13]));
  view.resume();
  assertEquals(seqsOf(recorder), [11, 12, 13, 14]);
  assertEquals(recorder.events.length, 4, "a status from before the gap came behind it");
});

Deno.test("RoomView goes on though a sync failed that it did not need", () => {
  const { view, recorder } = viewAtTen();
  view.expectSync();
  view.endSync(true);
  view.push(chat(11));
  assertEquals(seqsOf(recorder), [11]);
});

Deno.test("RoomView takes what a comparison of heads brings, and no more than once", () => {
  const { view, recorder } = viewAtTen();
  view.expectSync();
  view.push(chat(11));
  view.applySync(synced(12, [11, 12]));
  view.resume();
  view.push(chat(12));
  view.expectSync();
  view.push(chat(13));
  view.applySync(synced(12));
  view.resume();
  assertEquals(seqsOf(recorder), [11, 12, 13]);
});

Deno.test("RoomView tells a reset where the missing is no longer kept", () => {
  const { view, recorder } = viewAtTen();
  view.push(chat(40));
  view.applySync(synced(40, [39, 40]));
  view.resume();
  assertEquals(recorder.events[0], { type: "reset", epoch: "e", seq: 38, rev: 0, members: 2 });
  assertEquals(seqsOf(recorder), [39, 40]);
});

Deno.test("RoomView tells a reset where nothing is kept at all", () => {
  const { view, recorder } = viewAtTen();
  view.push(chat(12));
  view.push(chat(13));
  view.applySync(synced(12));
  view.resume();
  assertEquals(recorder.events[0], { type: "reset", epoch: "e", seq: 12, rev: 0, members: 2 });
  assertEquals(seqsOf(recorder), [13]);
});

Deno.test("RoomView begins a new epoch with a reset, and drops what is left of the old one", () => {
  const { view, recorder, asked } = viewAtTen();
  view.push(chat(8, "f"));
  view.push(chat(11));
  view.push(status(6, `j${pack("Ann")}`));
  view.applySync(synced(8, [7, 8], { epoch: "f", version: 0 }));
  view.resume();
  view.push(chat(12));
  view.push(status(1, `l${pack("Ann")}`, "f"));
  assertEquals(recorder.events[0], { type: "reset", epoch: "f", seq: 6, rev: 0, members: 2 });
  assertEquals([seqsOf(recorder), asked.gaps], [[7, 8], 1]);
  assertEquals(recorder.events.at(-1)?.type, "status");
});

Deno.test("RoomView asks once for an epoch that Redis does not know either", () => {
  const { view, recorder, asked } = viewAtTen();
  view.push(chat(1, "odd"));
  view.push(chat(11));
  view.applySync(synced(10));
  view.resume();
  assertEquals([seqsOf(recorder), asked.gaps], [[11], 1]);
});

Deno.test("RoomView hands out a status once, and none that the head had in it", () => {
  const { view, recorder } = viewAtTen();
  view.push(status(5, `j${pack("Ann")}`));
  view.push(status(6, `j${pack("Bob B")}${pack("Ann")}`));
  view.push(status(6, `j${pack("Bob B")}${pack("Ann")}`));
  view.push(status(7, `l${pack("Bob B")}${pack("")}${pack("u1")}`));
  view.push(status(8, `j${pack("Bob B")}${pack("")}${pack("u1")}${pack("m1")}`));
  const bob = { type: "status", name: "Bob B", user: "u1", was: undefined, members: 3 } as const;
  assertEquals(recorder.events, [
    { ...bob, event: "join", user: undefined, was: "Ann", to: undefined },
    { ...bob, event: "leave", to: undefined },
    { ...bob, event: "join", to: "m1" },
  ]);
});

Deno.test("RoomView hands out bytes as they are", () => {
  const { view, recorder } = viewAtTen();
  const bytes = new Uint8Array([0, 255, 98, 32]);
  view.push(Buffer.concat([Buffer.from("b3 é!"), bytes]));
  assertEquals(recorder.events, [{ type: "binary", bytes, from: "é!" }]);
});

/** The `rev`th change: of key `k`, that ends in so many ms. */
function change(rev: number, leftMs = 0): Buffer {
  return Buffer.from(`ke ${rev} ${leftMs} 5 k ${pack("Ann")}${rev}`);
}

Deno.test("RoomView takes a sync that newer changes have overtaken for what it is", () => {
  const { view, recorder, asked } = viewAtTen();
  view.expectSync();
  for (const rev of [1, 2]) view.push(change(rev));
  view.applySync(synced(10, [], { rev: 1 }));
  view.resume();
  view.push(change(3));
  const revs = recorder.events.map((event) => event.type === "set" && event.entry.rev);
  assertEquals([revs, asked.gaps], [[1, 2, 3], 0]);
});

Deno.test("RoomView tells when a key ends, and asks for a change that is missing", () => {
  const { view, asked, endsInMs } = viewAtTen();
  view.push(change(1, 900));
  view.push(change(3));
  assertEquals([asked.gaps, endsInMs], [1, [900]]);
});

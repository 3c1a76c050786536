import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import type { Engine } from "../../handlers/engine/engine.ts";
import type { Changes, Entry } from "../../handlers/engine/journal.ts";
import { SqliteFile } from "../../handlers/engine/sqlite.ts";
import { openStore } from "../../handlers/engine/store.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { draft, range, ROOMY } from "./contract.ts";
import { granted } from "../support/recorder.ts";

/** Runs a test with the path of a file that is not there yet. */
function fileTest(name: string, test: (path: string) => Promise<void> | void): void {
  Deno.test(name, async () => {
    const folder = await Deno.makeTempDir();
    try {
      await test(`${folder}/parley.db`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

function changesOf(puts: Record<number, Entry>, deletes: number[] = []): Changes {
  const entries = Object.entries(puts).map(([row, entry]) =>
    [Number(row), JSON.stringify(entry)] as const
  );
  return { puts: new Map(entries), deletes };
}

function rowsOf(file: SqliteFile): [number, Entry][] {
  const rows: [number, Entry][] = [];
  file.read((row, entry) => rows.push([row, entry]));
  return rows;
}

/** The entry of a room. */
function room(name: string, seq = 0): Entry {
  return ["room", name, "e", seq];
}

/** The entry of a message in the room of row 1. */
function chat(seq: number, message: string): Entry {
  return ["chat", 1, seq, 0, "Ann", message];
}

/** Why a new owner cannot open it. */
function reasonOf(path: string): string {
  return assertThrows(() => new SqliteFile(path, "test", false), Error).message;
}

fileTest(
  "SqliteFile.read() gives the rows that commit() made, in order of their numbers",
  (path) => {
    const file = new SqliteFile(path, "me", false);
    file.commit({
      puts: new Map([[2, JSON.stringify(room("b"))], [1, JSON.stringify(room("a", 7))]]),
      deletes: [],
    });
    assertEquals(rowsOf(file).map(([row]) => row), [1, 2]);
    const id: Entry = ["id", 1, "s", "i", null, 3, 1e14];
    const changes = changesOf({ 1: room("a", 9), 4: id, 5: chat(3, "x") }, [2, 5, 99]);
    // Repeated as after an error that came too late.
    for (let i = 0; i < 2; i++) file.commit(changes);
    assertEquals(rowsOf(file), [[1, room("a", 9)], [4, id]]);
    file.close();
  },
);

fileTest("the durable engine's file keeps texts that SQLite would change", async (path) => {
  const open = () => createDurableEngine(path, ROOMY, systemClock, silentLog);
  const texts = [
    "",
    "\0",
    "a\0b",
    "\ud800",
    "\udc00x",
    "\x01",
    '\x01"',
    "é😀",
    "x".repeat(1_000_000),
  ];
  const publish = (engine: Engine) =>
    Promise.all(texts.map((text) => {
      const key = { session: text, id: text, digest: text };
      return granted(engine.publish(text, { sender: text, message: text, key }));
    }));
  const engine = await open();
  const places = await publish(engine);
  await engine.close();
  const again = await open();
  for (const text of texts) {
    const [{ sender, message }] = (await granted(again.read(text))).chats;
    assertEquals([sender, message], [text, text]);
  }
  assertEquals(await publish(again), places, "all of them are known");
  await again.close();
});

fileTest("SqliteFile.commit() makes all changes or none", (path) => {
  const file = new SqliteFile(path, "me", false);
  const wrong = changesOf({ 1: room("a"), 1.5: room("b") });
  assertThrows(() => file.commit(wrong), Error, "datatype mismatch");
  assertEquals(rowsOf(file), []);
  file.commit(changesOf({ 1: room("a") }));
  assertEquals(rowsOf(file), [[1, room("a")]]);
  file.close();
});

fileTest("SqliteFile gives the disk back what was deleted, in batches that put nothing", (path) => {
  const file = new SqliteFile(path, "me", false);
  const rows = range(1, 3_000);
  const long = "x".repeat(4_000);
  file.commit(changesOf(Object.fromEntries(rows.map((row) => [row, chat(row, long)]))));
  file.commit(changesOf({}, rows));
  for (let i = 0; i < 5; i++) file.commit(changesOf({}));
  file.close();
  const { size } = Deno.statSync(path);
  assert(size < 10_000_000, `${size} bytes of 12,300,000 are left`);
});

fileTest("SqliteFile lets one process in at a time", (path) => {
  const file = new SqliteFile(path, "me", false);
  assertEquals(reasonOf(path), "another process uses it");
  file.close();
  new SqliteFile(path, "other", false).close();
  const again = () => new SqliteFile(path, "me", true);
  assertThrows(again, Error, "another process has used it");
  Deno.removeSync(path);
  assertThrows(again, Deno.errors.NotFound);
});

fileTest("SqliteFile makes files that its user alone can read", (path) => {
  const file = new SqliteFile(path, "me", false);
  file.commit(changesOf({ 1: room("a") }));
  for (const each of [path, `${path}-wal`]) assertEquals(Deno.statSync(each).mode! & 0o777, 0o600);
  file.close();
});

fileTest("SqliteFile refuses what is no file of its own", (path) => {
  Deno.writeTextFileSync(path, "PORT=8000\n");
  assertEquals(reasonOf(path), "it is a file of another program");
  assertEquals(Deno.readTextFileSync(path), "PORT=8000\n");
  Deno.removeSync(path);
  const other = new DatabaseSync(path);
  other.exec("CREATE TABLE notes (text TEXT)");
  other.close();
  const before = Deno.readFileSync(path);
  assertEquals(reasonOf(path), "it is a file of another program");
  assertEquals(Deno.readFileSync(path), before);
});

fileTest("SqliteFile takes what a kill in its very first moment leaves", (path) => {
  const begun = new DatabaseSync(path);
  begun.exec("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL");
  begun.close();
  assert(Deno.statSync(path).size > 0);
  const file = new SqliteFile(path, "me", false);
  file.commit(changesOf({ 1: room("a") }));
  file.close();
});

fileTest("SqliteFile refuses a file of a newer version", (path) => {
  new SqliteFile(path, "me", false).close();
  const newer = new DatabaseSync(path);
  newer.exec("PRAGMA user_version = 999");
  newer.close();
  assertMatch(
    reasonOf(path),
    /^it was written by a newer Parley: it has version 999, this one reads \d+$/,
  );
});

fileTest("SqliteFile refuses a file that is cut off", (path) => {
  const file = new SqliteFile(path, "me", false);
  const long = "x".repeat(500);
  const chats = range(1, 500).map((row) => [row, chat(row, long)]);
  file.commit(changesOf(Object.fromEntries(chats)));
  file.close();
  const { size } = Deno.statSync(path);
  for (const left of [size - 4_096, size / 2 | 0, 5_000, 100]) {
    Deno.truncateSync(path, left);
    assertMatch(reasonOf(path), /^it is (damaged: .+|a file of another program)$/, `${left} bytes`);
  }
});

fileTest("openStore() goes on in a new thread when the one before has died", async (path) => {
  const workers: Worker[] = [];
  const { Worker: RealWorker } = globalThis;
  globalThis.Worker = class extends RealWorker {
    constructor(...args: ConstructorParameters<typeof RealWorker>) {
      super(...args);
      workers.push(this);
    }
  };
  try {
    const store = await openStore(path, () => {});
    await store.commit(changesOf({ 1: room("a") }));
    // What its death is to the main thread: it runs no more, and there is an error event.
    const die = () => {
      workers.at(-1)!.terminate();
      workers.at(-1)!.dispatchEvent(new ErrorEvent("error", { message: "out of memory" }));
    };
    const commit = store.commit(changesOf({ 2: room("b") }));
    die();
    const { message } = await assertRejects(() => commit, Error);
    assertEquals(message, "its thread ended: out of memory");
    await store.commit(changesOf({ 2: room("b") }));
    die();
    await store.commit(changesOf({ 3: room("c") }));
    await store.close();
  } finally {
    globalThis.Worker = RealWorker;
  }
  assertEquals(workers.length, 3);
  const file = new SqliteFile(path, "test", false);
  assertEquals(rowsOf(file).map(([row]) => row), [1, 2, 3]);
  file.close();
});

fileTest("createDurableEngine() names the file that it cannot use", async (path) => {
  const open = () => createDurableEngine(path, ROOMY, systemClock, silentLog);
  const engine = await open();
  await granted(engine.publish("r", draft("1")));
  const error = await assertRejects(open, Error);
  assertEquals(error.message, `Cannot use file: another process uses it, ${path}`);
  await engine.close();
  const again = await open();
  assertEquals((await granted(again.read("r"))).chats.length, 1);
  await again.close();
});

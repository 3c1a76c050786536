/**
 * The durable engine's file: one SQLite database, used by one process at a time. Synchronous, so
 * it belongs in a thread of its own.
 */
import { existsSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { Changes, Entry } from "./journal.ts";

/** "PRLY": what makes a SQLite file one of Parley's. */
const APPLICATION_ID = 0x50524c59;
/** Raise it with every new kind of entry: an older Parley then refuses the file. */
const VERSION = 2;
const SCHEMA = `
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${VERSION};
  CREATE TABLE IF NOT EXISTS log (row INTEGER PRIMARY KEY, entry TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS owner (row INTEGER PRIMARY KEY, name TEXT) STRICT;
`;
/** Pages that are free and may stay so: they are used again soon. */
const MAX_FREE_PAGES = 2_000;
/** Pages that a batch without puts gives back to the disk. */
const VACUUM_PAGES = 200;

/** Is given each entry, in order of the rows. */
export type TakeEntry = (row: number, entry: Entry) => void;

/** An open file. */
export class SqliteFile {
  readonly #database: DatabaseSync;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;

  /**
   * Opens the file and locks it: as a new owner, or again as the one that it has.
   * @param owner a random name of who uses the file
   * @throws {Error} if it cannot be used; the message says why
   */
  constructor(path: string, owner: string, isAgain: boolean) {
    // A file that is gone would be made anew, without what it had.
    if (isAgain) Deno.statSync(path);
    // Messages are in it: it is for this user alone. Never opened where it is there: the close
    // would end the lock of whoever has it in this process.
    else if (!existsSync(path)) {
      Deno.openSync(path, { createNew: true, write: true, mode: 0o600 }).close();
    }
    // A thread that died lets go of the file a moment later.
    const database = new DatabaseSync(path, { timeout: isAgain ? 2_000 : 0 });
    this.#database = database;
    try {
      database.exec("PRAGMA locking_mode = EXCLUSIVE");
      if (!isAgain) this.#prepareFile(owner);
      const found = database.prepare("SELECT name FROM owner").get();
      if (found?.name !== owner) throw new Error("another process has used it");
      database.exec("PRAGMA synchronous = FULL");
      database.exec("PRAGMA journal_size_limit = 16777216");
      database.exec("PRAGMA cache_size = -16384");
      this.#put = database.prepare("INSERT OR REPLACE INTO log VALUES (?, ?)");
      this.#delete = database.prepare("DELETE FROM log WHERE row = ?");
    } catch (error) {
      database.close();
      throw new Error(explain(error), { cause: error });
    }
  }

  read(take: TakeEntry): void {
    const statement = this.#database.prepare(
      "SELECT row, entry FROM log WHERE row > ? ORDER BY row LIMIT 1000",
    );
    // Objects take twice as long, but Deno 2.5 has nothing else. The types do not know of this yet.
    (statement as { setReturnArrays?(isOn: boolean): void }).setReturnArrays?.(true);
    let last = 0;
    for (let rows; (rows = statement.all(last)).length > 0;) {
      for (const columns of rows) {
        const [row, entry] = Object.values(columns) as [number, string];
        take(last = row, JSON.parse(entry));
      }
    }
  }

  /**
   * Makes the changes together, on the disk when it returns. Repeating them does no harm.
   * @throws {Error} if none of them was made
   */
  commit({ puts, deletes }: Changes): void {
    const database = this.#database;
    try {
      database.exec("BEGIN IMMEDIATE");
      for (const [row, entry] of puts) this.#put.run(row, entry);
      for (const row of deletes) this.#delete.run(row);
      if (puts.size === 0 && Number(this.#pragma("freelist_count")) > MAX_FREE_PAGES) {
        // It frees one page a step: exec() would end after the first.
        database.prepare(`PRAGMA incremental_vacuum(${VACUUM_PAGES})`).all();
      }
      database.exec("COMMIT");
    } catch (error) {
      // After some errors, such as a full disk, SQLite has rolled back already.
      if (database.isTransaction) database.exec("ROLLBACK");
      throw new Error(explain(error), { cause: error });
    }
  }

  close(): void {
    this.#database.close();
  }

  #prepareFile(owner: string): void {
    const database = this.#database;
    const schema = database.prepare("SELECT count(*) AS count FROM sqlite_schema").get();
    // Empty is also what a process that was killed in its very first moment leaves.
    const mayBe = schema?.count === 0 ? [0, APPLICATION_ID] : [APPLICATION_ID];
    if (!mayBe.includes(Number(this.#pragma("application_id")))) {
      throw new Error("it is a file of another program");
    }
    const version = Number(this.#pragma("user_version"));
    if (version > VERSION) {
      throw new Error(
        `it was written by a newer Parley: it has version ${version}, this one reads ${VERSION}`,
      );
    }
    // Has to come before the first table.
    database.exec("PRAGMA auto_vacuum = INCREMENTAL");
    database.exec("PRAGMA journal_mode = WAL");
    const check = this.#pragma("quick_check(1)");
    if (check !== "ok") throw new Error(`it is damaged: ${check}`);
    database.exec("BEGIN IMMEDIATE");
    database.exec(SCHEMA);
    database.prepare("INSERT OR REPLACE INTO owner VALUES (1, ?)").run(owner);
    database.exec("COMMIT");
  }

  #pragma(text: string): unknown {
    return Object.values(this.#database.prepare(`PRAGMA ${text}`).get() ?? {})[0];
  }
}

/** SQLite's reason in the words of a start or commit that fails. */
function explain(error: unknown): string {
  const { message } = error as Error;
  if (/database is locked/.test(message)) return "another process uses it";
  if (/file is not a database/.test(message)) return "it is a file of another program";
  if (/malformed|disk image/.test(message)) return `it is damaged: ${message}`;
  return message;
}

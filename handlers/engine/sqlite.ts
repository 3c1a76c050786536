/**
 * The durable engine's file: one SQLite database, used by one process at a time. Synchronous, so
 * it belongs in a thread of its own.
 *
 * @module
 */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { type Changes, type Table, TABLE_NAMES, TABLES, type Value, widthOf } from "./journal.ts";

/** "PRLY": what makes a SQLite file one of Parley's. */
const APPLICATION_ID = 0x50524c59;
/** Raise it with every change of the tables: an older Parley then refuses the file. */
const VERSION = 1;
/** Rows that are read at once. */
const CHUNK_ROWS = 1_000;
/** Pages that are free and may stay so: they are used again soon. */
const MAX_FREE_PAGES = 2_000;
/** Pages that a batch without puts gives back to the disk. */
const VACUUM_PAGES = 200;

/** Takes whole rows, each with its number first. */
export type TakeRows = (table: Table, rows: Value[][]) => void;

/** An open file. */
export class SqliteFile {
  readonly #database: DatabaseSync;
  readonly #puts: Record<Table, StatementSync>;
  readonly #deletes: Record<Table, StatementSync>;

  /**
   * Opens the file and locks it: as a new owner, or again as the one that it has.
   *
   * @param owner a random name of who uses the file
   * @throws {Error} if it cannot be used; the message says why
   */
  constructor(path: string, owner: string, isAgain: boolean) {
    // A file that is gone would be made anew, without what it had.
    if (isAgain) Deno.statSync(path);
    else createFile(path);
    // A thread that died lets go of the file a moment later.
    const database = new DatabaseSync(path, { timeout: isAgain ? 2_000 : 0 });
    this.#database = database;
    try {
      database.exec("PRAGMA locking_mode = EXCLUSIVE");
      if (isAgain) this.#checkOwner(owner);
      else this.#prepareFile(owner);
      database.exec("PRAGMA synchronous = FULL");
      database.exec("PRAGMA journal_size_limit = 16777216");
      database.exec("PRAGMA cache_size = -16384");
      this.#puts = this.#prepareEach((table) => {
        const places = Array(widthOf(table)).fill("?").join(", ");
        return `INSERT OR REPLACE INTO ${table} VALUES (${places})`;
      });
      this.#deletes = this.#prepareEach((table) => `DELETE FROM ${table} WHERE row = ?`);
    } catch (error) {
      database.close();
      throw new Error(explain(error), { cause: error });
    }
  }

  /** Reads all rows, each table in order of its rows' numbers. */
  read(take: TakeRows): void {
    for (const table of TABLE_NAMES) {
      const statement = this.#database.prepare(
        `SELECT * FROM ${table} WHERE row > ? ORDER BY row LIMIT ${CHUNK_ROWS}`,
      );
      returnArrays(statement);
      let last: Value = -1;
      for (let rows; (rows = statement.all(last) as unknown as Value[][]).length > 0;) {
        last = rows.at(-1)![0];
        for (const row of rows) row.forEach(decodeIn);
        take(table, rows);
      }
    }
  }

  /**
   * Makes the changes together, on the disk when it returns. Repeating them does no harm.
   *
   * @throws {Error} if none of them was made
   */
  commit({ puts, deletes }: Changes): void {
    const database = this.#database;
    let hasPuts = false;
    try {
      database.exec("BEGIN IMMEDIATE");
      for (const table of TABLE_NAMES) {
        const values = puts[table];
        const width = widthOf(table);
        hasPuts ||= values.length > 0;
        for (let at = 0; at < values.length; at += width) {
          this.#puts[table].run(...values.slice(at, at + width).map(encode));
        }
        for (const row of deletes[table]) this.#deletes[table].run(row);
      }
      database.exec("COMMIT");
    } catch (error) {
      this.#rollback();
      throw new Error(explain(error), { cause: error });
    }
    if (!hasPuts) this.#shrink();
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
    database.exec(`PRAGMA application_id = ${APPLICATION_ID}`);
    database.exec(`PRAGMA user_version = ${VERSION}`);
    for (const table of TABLE_NAMES) {
      const columns = Object.entries(TABLES[table]).map(([name, type]) => `, ${name} ${type}`);
      database.exec(
        `CREATE TABLE IF NOT EXISTS ${table} (row INTEGER PRIMARY KEY${columns.join("")}) STRICT`,
      );
    }
    database.exec("CREATE TABLE IF NOT EXISTS owner (row INTEGER PRIMARY KEY, name TEXT) STRICT");
    database.prepare("INSERT OR REPLACE INTO owner VALUES (1, ?)").run(owner);
    database.exec("COMMIT");
  }

  #checkOwner(owner: string): void {
    const found = this.#database.prepare("SELECT name FROM owner").get();
    if (found?.name !== owner) throw new Error("another process has used it");
  }

  #pragma(text: string): unknown {
    return Object.values(this.#database.prepare(`PRAGMA ${text}`).get() ?? {})[0];
  }

  #prepareEach(sql: (table: Table) => string): Record<Table, StatementSync> {
    const statements = TABLE_NAMES.map((table) => [table, this.#database.prepare(sql(table))]);
    return Object.fromEntries(statements);
  }

  /** After some errors, such as a full disk, SQLite has rolled back already. */
  #rollback(): void {
    try {
      this.#database.exec("ROLLBACK");
    } catch {
      // There is no transaction any more.
    }
  }

  /** Gives free pages back to the disk, some at a time; an error is the next commit's, too. */
  #shrink(): void {
    try {
      if (Number(this.#pragma("freelist_count")) < MAX_FREE_PAGES) return;
      // It frees one page a step: exec() would end after the first.
      this.#database.prepare(`PRAGMA incremental_vacuum(${VACUUM_PAGES})`).all();
    } catch {
      this.#rollback();
    }
  }
}

/** Makes the file if it is not there, for this user alone: messages are in it. */
function createFile(path: string): void {
  try {
    // Never opened where it is there: the close would end the lock of whoever has it in this process.
    Deno.openSync(path, { write: true, createNew: true, mode: 0o600 }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}

/** Makes rows arrays. Deno has this, its types do not yet. */
function returnArrays(statement: StatementSync): void {
  (statement as unknown as { setReturnArrays(isOn: boolean): void }).setReturnArrays(true);
}

/** Marks a text that SQLite would change (it cuts at NUL and takes no lone surrogate): JSON follows. */
const MARK = "\x01";

function encode(value: Value): Value {
  if (typeof value !== "string") return value;
  const isSafe = value.isWellFormed() && !value.includes("\0") && !value.startsWith(MARK);
  return isSafe ? value : MARK + JSON.stringify(value);
}

function decodeIn(value: Value, at: number, row: Value[]): void {
  const isMarked = typeof value === "string" && value.startsWith(MARK);
  if (isMarked) row[at] = JSON.parse(value.slice(MARK.length));
}

/** SQLite's reason in the words of a start or commit that fails. */
function explain(error: unknown): string {
  const { message } = error as Error;
  if (/database is locked/.test(message)) return "another process uses it";
  if (/file is not a database/.test(message)) return "it is a file of another program";
  if (/malformed|disk image/.test(message)) return `it is damaged: ${message}`;
  return message;
}

/**
 * Rooms that only those may join whom a database names as members.
 *
 *     deno run -A tests/examples/members_only.ts
 *
 * @module
 */
import { DatabaseSync } from "node:sqlite";
import { createParley, type Parley, refuse } from "../../handlers/parley.ts";

/** Makes a Parley that asks `database`, whose table `members` has `room` and `name`. */
export function createMembersOnly(database: DatabaseSync): Parley {
  const find = database.prepare("SELECT 1 FROM members WHERE room = ? AND name = ?");
  return createParley({
    onJoin: ({ room, name }) =>
      find.get(room, name) ? undefined : refuse(`Not a member of ${room}.`),
  });
}

/** Makes a database in memory with some members. */
export function createDatabase(members: [room: string, name: string][]): DatabaseSync {
  const database = new DatabaseSync(":memory:");
  database.exec("CREATE TABLE members (room TEXT, name TEXT, PRIMARY KEY (room, name))");
  const insert = database.prepare("INSERT INTO members VALUES (?, ?)");
  for (const [room, name] of members) insert.run(room, name);
  return database;
}

if (import.meta.main) Deno.serve(createMembersOnly(createDatabase([["board", "Ann"]])).fetch);

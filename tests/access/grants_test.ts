import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Grants, OPEN_RIGHTS, rightsOf } from "../../handlers/access/grants.ts";

const ROOMS = ["ops", "opsx", "team-", "team-a", "team", "lobby", "user:ann", "user:bob", "user:*"];

/** The rooms that these grants let a visitor subscribe to, and speak in. */
function roomsOf(grants: Grants): [string[], string[]] {
  const { maySubscribe, maySpeak } = rightsOf(grants);
  return [ROOMS.filter(maySubscribe), ROOMS.filter(maySpeak)];
}

Deno.test("OPEN_RIGHTS allow everything", () => {
  const { maySubscribe, maySpeak, mayPublish, isAdmin } = OPEN_RIGHTS;
  assert(maySubscribe("any") && maySubscribe("_stats") && maySpeak("any") && mayPublish && isAdmin);
});

Deno.test("rightsOf() reads rooms by name and by `prefix*`; missing is all, empty is none", () => {
  assertEquals(roomsOf({ rooms: ["ops", "team-*"] })[0], ["ops", "team-", "team-a"]);
  assertEquals(roomsOf({})[0], ROOMS);
  assertEquals(roomsOf({ rooms: ["*"] })[0], ROOMS);
  assertEquals(roomsOf({ rooms: [] })[0], []);
});

Deno.test("rightsOf() lets a visitor speak where `speak` says, and only in granted rooms", () => {
  assertEquals(roomsOf({ rooms: ["ops", "team"], speak: ["ops", "lobby"] })[1], ["ops"]);
  assertEquals(roomsOf({ rooms: ["ops", "team"] })[1], ["ops", "team"]);
  assertEquals(roomsOf({ speak: [] })[1], []);
});

Deno.test("rightsOf() grants `publish` and `admin` only where they are true", () => {
  const { mayPublish, isAdmin } = rightsOf({ publish: true, admin: true });
  assertEquals([mayPublish, isAdmin], [true, true]);
  const none = rightsOf({});
  assertEquals([none.mayPublish, none.isAdmin], [false, false]);
});

Deno.test("rightsOf() keeps the server's own rooms for an admin, who speaks there as little", () => {
  assert(!rightsOf({ rooms: ["*", "_stats"], listen: ["_stats"] }).maySubscribe("_stats"));
  assert(rightsOf({ admin: true, rooms: [] }).maySubscribe("_stats"));
});

Deno.test("rightsOf() grants `listen` rooms in addition to `rooms`, to subscribe and not to speak", () => {
  const grants = { user: "ann", rooms: ["ops"], listen: ["user:{sub}", "lobby"] };
  assertEquals(rightsOf(grants).listen, ["user:ann", "lobby"]);
  assertEquals(roomsOf(grants), [["ops", "lobby", "user:ann"], ["ops"]]);
});

Deno.test("{sub} is the user in each rule, also one who is called like a rule", () => {
  const rules = { rooms: ["user:{sub}", "{sub}*"], speak: ["user:{sub}"], listen: ["user:{sub}"] };
  assertEquals(roomsOf({ user: "ann", ...rules }), [["user:ann"], ["user:ann"]]);
  assertEquals(roomsOf({ user: "*", ...rules })[0], ["user:*"]);
  assertEquals(roomsOf({ user: "team", ...rules })[0], ["team-", "team-a", "team"]);
  assertEquals(roomsOf({ user: "$&", rooms: ["{sub}"] })[0], []);
});

Deno.test("{sub} without a user is no room", () => {
  const rules = { rooms: ["user:{sub}", "{sub}*", "ops"], listen: ["user:{sub}"] };
  assertEquals(roomsOf(rules)[0], ["ops"]);
  assertEquals(rightsOf(rules).listen, []);
});

Deno.test("`listen` names rooms, and what names none is left out", () => {
  const listen = ["ops", "user:{sub}", "user:*", "a b", ""];
  assertEquals(rightsOf({ user: "auth0|7", listen }).listen, ["ops"]);
  assert(!rightsOf({ user: "auth0|7", rooms: [], listen }).maySubscribe("user:auth0|7"));
});

Deno.test("rightsOf() counts idempotency keys by user, else by name", () => {
  assertEquals(rightsOf({ user: "u1", name: "Ann" }).subject, "u1");
  assertEquals(rightsOf({ name: "Ann" }).subject, "Ann");
  assertEquals(rightsOf({}).subject, "");
});

Deno.test("rightsOf() refuses a name that is none", () => {
  assertThrows(() => rightsOf({ name: "Ann\nBob" }), TypeError, '"Ann\\nBob" is no name');
});

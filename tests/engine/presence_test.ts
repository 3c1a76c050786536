import { assertEquals } from "@std/assert";
import { MAX_LISTED, Presence } from "../../handlers/engine/presence.ts";
import { range } from "./contract.ts";

/** Who is in a presence, as somebody who counts everybody would tell it. */
function sorted(people: Map<string, { name: string; user?: string }>) {
  const names = [...people.values()].filter(({ user }) => !user).map(({ name }) => name);
  const users = Map.groupBy([...people.values()].filter(({ user }) => user), ({ user }) => user);
  const all = [
    ...names.map((name) => `${name} 1`),
    ...users.values().map((own) => `${own[0].name} ${own.length}`),
  ];
  return all.sort().slice(0, MAX_LISTED);
}

Deno.test("Presence lists the first by name, whoever came, went or changed the name since it was asked", () => {
  const presence = new Presence();
  const people = new Map<string, { name: string; user?: string }>();
  // The same on each run, in no order: the multiplier is prime to the count.
  const nameOf = (n: number) => `name ${String(n * 7_919 % 10_007).padStart(5, "0")}`;
  const join = (n: number, name: string, user?: string) => {
    presence.join(`m${n}`, name, user);
    people.set(`m${n}`, { name, user });
    for (const one of people.values()) if (user && one.user === user) one.name = name;
  };
  const check = () => {
    const { members, count } = presence.list();
    assertEquals(members.map(({ name, sockets }) => `${name} ${sockets}`), sorted(people));
    assertEquals(count, presence.count);
  };
  check();
  for (const n of range(0, 3_499)) {
    join(n, nameOf(n), n % 5 === 0 ? `user ${n % 400}` : undefined);
    if (n % 250 === 0) check();
  }
  for (const n of range(0, 3_499)) {
    if (n % 3 === 0) join(n, nameOf(n + 4_000), people.get(`m${n}`)!.user);
    else {
      presence.leave(`m${n}`);
      people.delete(`m${n}`);
    }
    if (n % 250 === 0) check();
  }
  for (const member of [...people.keys()]) presence.leave(member);
  assertEquals(presence.list(), { members: [], count: 0 });
});

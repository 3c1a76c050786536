/** Who has joined a room: people, of whom a user may have several sockets. */
import type { Members, Person, Status } from "../protocol/room_event.ts";
import { byName, placeOf } from "../util/sorted.ts";

/** The most people that a room's list names. */
export const MAX_LISTED = 1_000;
/** The most that are kept in their order. */
const MAX_KNOWN = 2 * MAX_LISTED;

/** The members of one room, and whom they belong to. A member belongs to one user for as long as it is here. */
export class Presence {
  /** A user's members share one person; of any other member only the name is kept. */
  readonly #members = new Map<string, string | Person>();
  #users?: Map<string, Person>;
  /** Members beyond the first one of their user. */
  #furtherCount = 0;
  /** The first by name, once somebody has asked; more than are told, so that it outlasts some who leave. */
  #list?: Person[];

  get count(): number {
    return this.#members.size - this.#furtherCount;
  }

  nameOf(member: string): string | undefined {
    const known = this.#members.get(member);
    return typeof known === "object" ? known.name : known;
  }

  /** Adds a member, or gives its person another name: what the room hears of it. */
  join(member: string, name: string, user?: string): Status {
    let was = this.nameOf(member);
    let to: string | undefined;
    if (user === undefined) {
      if (was !== undefined) this.#unlist(was);
      this.#members.set(member, name);
      this.#enlist({ name, sockets: 1 });
    } else {
      this.#users ??= new Map();
      const known = this.#users.get(user);
      const person = known ?? { name, user, sockets: 0 };
      if (known) this.#unlist(known.name, user);
      if (was === undefined) {
        this.#users.set(user, person);
        this.#members.set(member, person);
        person.sockets++;
        if (known) this.#furtherCount++;
        if (known?.name === name) to = member;
        else was = known?.name;
      }
      person.name = name;
      this.#enlist(person);
    }
    return { type: "status", event: "join", name, user, was, members: this.count, to };
  }

  /** Removes a member: what the room hears of it, if its person has gone. */
  leave(member: string): Status | undefined {
    const known = this.#members.get(member);
    if (known === undefined) return undefined;
    this.#members.delete(member);
    const { name, user } = typeof known === "object" ? known : { name: known };
    if (typeof known === "object" && --known.sockets > 0) {
      this.#furtherCount--;
      return undefined;
    }
    if (user !== undefined) this.#users!.delete(user);
    this.#unlist(name, user);
    return { type: "status", event: "leave", name, user, members: this.count };
  }

  list(): Members {
    if (!this.#list) {
      const known = [...this.#members.values()];
      // The names are cut before they become people: of a large room few are shown.
      const names = known.filter((one) => typeof one === "string").sort().slice(0, MAX_KNOWN);
      const people = [
        ...names.map((name) => ({ name, sockets: 1 })),
        ...this.#users?.values() ?? [],
      ];
      this.#list = people.sort(byName).slice(0, MAX_KNOWN);
    }
    const members = this.#list.slice(0, MAX_LISTED).map((person) => ({ ...person }));
    return { members, count: this.count };
  }

  #enlist(person: Person): void {
    const list = this.#list;
    if (!list) return;
    const at = placeOf(list, person.name);
    // It may stand behind others who are not known here.
    if (at === list.length && list.length < this.count - 1) return;
    list.splice(at, 0, person);
    if (list.length > MAX_KNOWN) list.pop();
  }

  #unlist(name: string, user?: string): void {
    const list = this.#list;
    if (!list) return;
    let at = placeOf(list, name);
    while (list[at]?.name === name && list[at].user !== user) at++;
    if (list[at]?.name === name) list.splice(at, 1);
    if (list.length < MAX_LISTED && list.length < this.count) this.#list = undefined;
  }
}

/** The first people by name. */
export function firstByName(people: Person[]): Person[] {
  return people.sort(byName).slice(0, MAX_LISTED);
}

/** Who has joined a room: people, of whom a user may have several sockets. */
import type { Members, Person, Status } from "../protocol/room_event.ts";

/** The most people that a room's list names. */
export const MAX_LISTED = 1_000;

/** The members of one room, and whom they belong to. A member belongs to one user for as long as it is here. */
export class Presence {
  /** A user's members share one person; of any other member only the name is kept. */
  readonly #members = new Map<string, string | Person>();
  /** There only once a user has joined. */
  #users?: Map<string, Person>;
  /** Members beyond the first one of their user. */ #furtherCount = 0;
  /** The list, until somebody comes or goes. */ #list?: Person[];

  get count(): number {
    return this.#members.size - this.#furtherCount;
  }

  /** The name that a member is known by, if it is here. */
  nameOf(member: string): string | undefined {
    const known = this.#members.get(member);
    return typeof known === "object" ? known.name : known;
  }

  /** Adds a member, or gives its person another name: what the room hears of it. */
  join(member: string, name: string, user?: string): Status {
    let was = this.nameOf(member);
    let to: string | undefined;
    if (user === undefined) this.#members.set(member, name);
    else {
      this.#users ??= new Map();
      const known = this.#users.get(user);
      const person = known ?? { name, user, sockets: 0 };
      if (was === undefined) {
        this.#users.set(user, person);
        this.#members.set(member, person);
        person.sockets++;
        if (known) this.#furtherCount++;
        if (known?.name === name) to = member;
        else was = known?.name;
      }
      person.name = name;
    }
    this.#list = undefined;
    return { type: "status", event: "join", name, user, was, members: this.count, to };
  }

  /** Removes a member: what the room hears of it, if its person has gone. */
  leave(member: string): Status | undefined {
    const known = this.#members.get(member);
    if (known === undefined) return undefined;
    this.#members.delete(member);
    this.#list = undefined;
    const { name, user } = typeof known === "object" ? known : { name: known };
    if (typeof known === "object" && --known.sockets > 0) {
      this.#furtherCount--;
      return undefined;
    }
    if (user !== undefined) this.#users!.delete(user);
    return { type: "status", event: "leave", name, user, members: this.count };
  }

  list(): Members {
    if (!this.#list) {
      const known = [...this.#members.values()];
      // The names are cut before they become people: of a large room few are shown.
      const names = known.filter((one) => typeof one === "string").sort().slice(0, MAX_LISTED);
      const users = this.#users?.values().map((user) => ({ ...user })) ?? [];
      this.#list = firstByName([...names.map((name) => ({ name, sockets: 1 })), ...users]);
    }
    return { members: this.#list, count: this.count };
  }
}

/** The first people by name. */
export function firstByName(people: Person[]): Person[] {
  return people.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
    .slice(0, MAX_LISTED);
}

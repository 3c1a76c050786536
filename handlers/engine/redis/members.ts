/** Who has joined a room on this node. */
import { byteLength } from "../../util/bytes.ts";
import type { Refusal } from "../engine.ts";
import { pack } from "./encoding.ts";
import type { RedisNode, RedisRoom } from "./room.ts";

/** A member as Redis keeps it: by the last join, and by the last one that was confirmed. */
interface Member {
  latest: { who: string };
  confirmed?: { who: string };
}

/** A room's members on this node, and whether Redis knows them. */
export class LocalMembers {
  readonly #members = new Map<string, Member>();
  /** Whether Redis has the members as they are here, or will have once it answers. */
  isRegistered = true;

  constructor(readonly room: RedisRoom, readonly node: RedisNode) {}

  get size(): number {
    return this.#members.size;
  }

  /** Adds a member, or renames one. If this is refused, the last confirmed name stays. */
  async join(id: string, name: string, user?: string): Promise<Refusal | undefined> {
    const owner = user === undefined ? "" : pack(user);
    const join = { who: (owner && `=${byteLength(owner)} ${owner}`) + pack(name) };
    const member: Member = this.#members.get(id) ?? { latest: join };
    this.#members.set(id, member);
    member.latest = join;
    if (await this.#run("join", id, join.who)) {
      member.confirmed = join;
      this.node.flush(this.room);
      return;
    }
    if (member.latest === join) {
      if (member.confirmed) member.latest = member.confirmed;
      else if (this.#members.get(id) === member) this.#members.delete(id);
    }
    return { refused: "unavailable" };
  }

  async leave(id: string): Promise<void> {
    if (!this.#members.delete(id)) return;
    if (await this.#run("leave", id)) await this.node.flush(this.room);
  }

  clear(): void {
    this.forget();
    this.#members.clear();
  }

  /** Called when Redis may not have them any more. */
  forget(): void {
    if (this.#members.size > 0) this.isRegistered = false;
  }

  /** What a sync tells Redis: all members, or nothing. */
  toArgs(): string[] {
    if (this.isRegistered) return ["0"];
    this.isRegistered = true;
    return ["1", ...[...this.#members].flatMap(([id, { latest }]) => [id, latest.who])];
  }

  async #run(script: "join" | "leave", ...args: string[]): Promise<boolean> {
    const { id, events } = this.node;
    const answer = await this.node.run(script, this.room.keys, [id, ...args, events]);
    if (answer === undefined) this.isRegistered = false;
    return answer !== undefined;
  }
}

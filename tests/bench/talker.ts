/** A member without a socket. */

import { v1 } from "../../handlers/protocol/encode.ts";
import { join, subscribe } from "../../handlers/registry/membership.ts";
import type { Registry } from "../../handlers/registry/registry.ts";
import { Line, type Sender } from "../../handlers/registry/sender.ts";
import { TestSubscriber } from "../support/subscriber.ts";

/** A socket that takes what it is sent, and may say everything. */
export class Talker extends TestSubscriber implements Sender {
  readonly via = "socket";
  readonly line: Line = new Line();

  /** @param user as a token would tell it */
  constructor(registry: Registry, readonly room: string, readonly user?: string) {
    super(registry, v1);
    this.rights = { ...this.rights, user };
    subscribe(registry.room(room), this, {});
  }

  nameIn(room: string): string | undefined {
    return this.rooms.get(room)?.name;
  }

  tryConsume(): number {
    return 0;
  }

  override send(): void {}

  /** Joins its room. */
  join(name: string): this {
    join(this.registry.room(this.room), { name, size: 20 }, this);
    return this;
  }

  /** Says something in its room. */
  say(message: string, key?: { session: string; id: string }): void {
    this.registry.room(this.room).publish({ message, size: 64, key }, this);
  }
}

/** What stands between an engine and a host while the head that `host` answers with is on its way. */
import { setImmediate } from "node:timers";
import type { RoomEvent } from "../protocol/room_event.ts";
import type { Host } from "./engine.ts";

/** Holds events back until who asked to host has seen the head that they follow. */
export class HostGate implements Host {
  #held?: RoomEvent[] = [];
  #isClosed = false;

  constructor(readonly host: Host) {}

  get subscriberCount(): number {
    return this.host.subscriberCount;
  }

  deliver(event: RoomEvent): void {
    if (this.#held) this.#held.push(event);
    else if (!this.#isClosed) this.host.deliver(event);
  }

  /** Lets events through from the next turn on: promises of the head come first. */
  open(): void {
    setImmediate(() => this.openNow());
  }

  openNow(): void {
    for (const event of this.#held ?? []) if (!this.#isClosed) this.host.deliver(event);
    this.#held = undefined;
  }

  close(): void {
    this.#isClosed = true;
  }
}

/**
 * A subscriber without a transport.
 *
 * @module
 */
import { OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import { type Dialect, events } from "../../handlers/protocol/encode.ts";
import type { Registry } from "../../handlers/registry/registry.ts";
import { type Frame, Subscriber } from "../../handlers/registry/subscriber.ts";

/** Writes down what it is sent. */
export class TestSubscriber extends Subscriber {
  readonly sent: Frame[] = [];
  unsentBytes = 0;

  constructor(registry: Registry, dialect: Dialect = events, homeRoom?: string) {
    const visitor = { remote: "192.0.2.1:5", address: "192.0.2.1", rights: OPEN_RIGHTS };
    const slot = { release() {} };
    super(registry, { ...visitor, slot, dialect, homeRoom });
    this.open();
  }

  /** The frames so far, which are forgotten. */
  take(): Frame[] {
    return this.sent.splice(0);
  }

  /** What an event stream was sent: each event's data, and its id. */
  get events(): [data: Record<string, unknown>, id: string][] {
    return this.sent.map((frame) => {
      const [, data, id] = /^data:(.*)\nid:(.*)$/m.exec(String(frame))!;
      return [JSON.parse(data), id];
    });
  }

  /** The peer goes. */
  drop(): void {
    this.end({ by: "peer", code: 1000, reason: "closed" });
    this.release();
  }

  send(frame: Frame): void {
    if (!this.hasEnded) this.sent.push(frame);
  }

  protected closeTransport(): void {}
}

/** Turns of the event loop: what `parley.v1` merges is sent when a turn ends. */
import { setImmediate } from "node:timers";

/** Something with frames pending: `flush` sends all of them. */
export interface Pending {
  flush(): void;
}

/** A room: `flushSome` sends to a part of its subscribers, and returns whether more is pending. */
export interface PendingRoom extends Pending {
  flushSome(): boolean;
}

/** Flushes whatever is pending when the turn ends: rooms first, as they fill connections. */
export class Turn {
  #rooms: PendingRoom[] = [];
  #connections: Pending[] = [];
  #isScheduled = false;

  /**
   * @param schedule runs a task at the end of the turn; a test may run it itself
   * @param scheduleNext runs it at the end of the next one, when what was sent is written
   */
  constructor(
    readonly schedule: (task: () => void) => void = queueMicrotask,
    readonly scheduleNext: (task: () => void) => void = setImmediate,
  ) {}

  /** Marks a room; it marks itself once until all of it is sent. */
  addRoom(room: PendingRoom): void {
    this.#rooms.push(room);
    this.#start();
  }

  /** Marks a connection; it marks itself once until it is sent. */
  addConnection(connection: Pending): void {
    this.#connections.push(connection);
    this.#start();
  }

  flush(): void {
    for (const room of this.#rooms) room.flush();
    this.#flushConnections();
  }

  #start(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.schedule(() => this.#end());
  }

  #end(): void {
    const rooms = this.#rooms;
    this.#rooms = [];
    for (const room of rooms) {
      if (room.flushSome()) this.#rooms.push(room);
    }
    this.#flushConnections();
    this.#isScheduled = this.#rooms.length + this.#connections.length > 0;
    if (this.#isScheduled) this.scheduleNext(() => this.#end());
  }

  #flushConnections(): void {
    const connections = this.#connections;
    this.#connections = [];
    for (const connection of connections) connection.flush();
  }
}

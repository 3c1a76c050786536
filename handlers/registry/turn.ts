/**
 * A turn of the event loop: what `parley.v1` merges is sent when it ends.
 *
 * @module
 */

/** Something with frames due at the end of the turn. */
export interface Due {
  /** Sends what is due. */
  flush(): void;
}

/** Calls each {@link Due} once at the end of the turn: rooms first, as they fill connections. */
export class Turn {
  #rooms: Due[] = [];
  #connections: Due[] = [];
  #isScheduled = false;

  /** @param schedule runs a task at the end of the turn; a test may run it itself */
  constructor(readonly schedule: (task: () => void) => void = queueMicrotask) {}

  /** Marks a room; it marks itself once a turn. */
  addRoom(room: Due): void {
    this.#rooms.push(room);
    this.#start();
  }

  /** Marks a connection; it marks itself once a turn. */
  addConnection(connection: Due): void {
    this.#connections.push(connection);
    this.#start();
  }

  /** Sends all that is due now. */
  flush(): void {
    this.#isScheduled = false;
    const rooms = this.#rooms;
    this.#rooms = [];
    for (const room of rooms) room.flush();
    const connections = this.#connections;
    this.#connections = [];
    for (const connection of connections) connection.flush();
  }

  #start(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.schedule(() => this.flush());
  }
}

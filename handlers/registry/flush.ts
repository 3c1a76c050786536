/**
 * Turns of the event loop: what `parley.v1` merges is sent when one ends.
 *
 * @module
 */

/** Something with frames due. */
export interface Due {
  /** Sends all that is due. */
  flush(): void;
}

/** A room: its listeners may be too many for one turn. */
export interface DueRoom extends Due {
  /** Sends what is due to some of its listeners; tells whether more is due. */
  flushSome(): boolean;
}

/** Calls whoever has something due at the end of the turn: rooms first, as they fill connections. */
export class Turn {
  #rooms: DueRoom[] = [];
  #connections: Due[] = [];
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
  addRoom(room: DueRoom): void {
    this.#rooms.push(room);
    this.#start();
  }

  /** Marks a connection; it marks itself once until it is sent. */
  addConnection(connection: Due): void {
    this.#connections.push(connection);
    this.#start();
  }

  /** Sends all that is due now. */
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

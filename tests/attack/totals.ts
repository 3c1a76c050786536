/**
 * What a server under attack tells of itself.
 *
 * @module
 */

/** Totals of the registry, its counters, and the process after a collection. */
export interface Totals {
  clients: number;
  /** Sockets and readers that the runtime still holds. */
  held: number;
  /** Those of them from 127.0.0.1. */
  heldHere: number;
  /** Rooms with listeners. */
  rooms: number;
  /** Rooms that the engine knows. */
  engineRooms: number;
  historyBytes: number;
  /** Sockets that have joined, a room each. */
  members: number;
  connections: Record<string, number>;
  closes: Record<string, number>;
  refusals: Record<string, number>;
  messagesIn: number;
  logLines: number;
  /** What was logged as an error, and keys that stand in every object. */
  errors: string[];
  rssMb: number;
  /** The most that was held since the start. */
  peakRssMb: number;
  /** V8's heap in use and what it holds outside. */
  heapMb: number;
  /** User and system, since the start. */
  cpuSeconds: number;
}

/** Time, deliveries, processor time and memory around what is measured. */

import process from "node:process";
import type { Crowd } from "./crowd.ts";
import { collectGarbage } from "./inspector.ts";
import type { LoadResult, LoadSpec } from "./load.ts";
import { cpuSeconds, machineCpuSeconds, residentBytes } from "./proc.ts";

const MEMORY_SETTLES_MILLISECONDS = 1000;

/** What happened between two moments. */
export class Stopwatch {
  readonly #crowds: Crowd[];
  readonly #serverPid?: number;
  readonly #inspectorPort?: number;
  #from = {
    at: 0,
    delivered: 0,
    connections: 0,
    parsed: 0,
    client: 0,
    server: 0,
    machine: 0,
  };

  constructor(crowds: Crowd[], { serverPid, inspectorPort }: LoadSpec) {
    this.#crowds = crowds;
    this.#serverPid = serverPid;
    this.#inspectorPort = inspectorPort;
  }

  start(): void {
    this.#from = this.#now();
  }

  /** Up to the last message heard. */
  stop(): LoadResult {
    const from = this.#from;
    const to = this.#now();
    const wall = (to.at - from.at) / 1000;
    const client = to.client - from.client;
    const server = to.server - from.server;
    const others = to.machine - from.machine - client - server;
    return {
      delivered: to.delivered - from.delivered,
      connections: to.connections - from.connections,
      seconds: (Math.max(...this.#crowds.map(({ lastHeard }) => lastHeard)) - from.at) / 1000,
      clientBusy: client / wall,
      serverBusy: this.#serverPid ? server / wall : undefined,
      othersBusy: this.#serverPid ? others / wall : undefined,
      parsed: to.parsed - from.parsed,
    };
  }

  /** Resident bytes of the server when all has come to rest. */
  async memory(): Promise<number> {
    await this.#crowds[0].sleep(MEMORY_SETTLES_MILLISECONDS);
    if (this.#inspectorPort) {
      await collectGarbage(this.#inspectorPort);
      await this.#crowds[0].sleep(MEMORY_SETTLES_MILLISECONDS);
    }
    return this.#serverPid ? residentBytes(this.#serverPid) : 0;
  }

  #now() {
    const { user, system } = process.cpuUsage();
    const sum = (figure: (crowd: Crowd) => number) =>
      this.#crowds.reduce((total, crowd) => total + figure(crowd), 0);
    return {
      at: performance.now(),
      delivered: sum((crowd) => crowd.delivered()),
      connections: sum((crowd) => crowd.connected),
      parsed: sum((crowd) => crowd.ledger.parsed),
      client: (user + system) / 1e6,
      server: this.#serverPid ? cpuSeconds(this.#serverPid) : 0,
      machine: machineCpuSeconds(),
    };
  }
}

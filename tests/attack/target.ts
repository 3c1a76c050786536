/**
 * The server that is attacked, and what must hold after each attack.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { ERROR_TEXTS } from "../../handlers/protocol/encode.ts";
import { Client, RawClient } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { ServerProcess } from "../support/process.ts";
import { IS_FULL } from "../support/run.ts";
import { InnocentPair } from "./pair.ts";
import type { Totals } from "./totals.ts";

/** Codes that refusals are counted under: those of messages, and those of HTTP. */
const REFUSALS = new Set([
  ...Object.keys(ERROR_TEXTS),
  ..."no_token bad_token token_expired draining full overloaded too_many_connections".split(" "),
  ..."bad_body bad_host bad_key bad_limit bad_type bad_url bad_version conflict internal".split(
    " ",
  ),
  ..."method_not_allowed timeout too_big upgrade_required uri_too_long".split(" "),
]);

/** How an attack is to end. */
export interface Aftermath {
  /** The most that the process may hold after it, in MB. Only an attack at full size weighs it. */
  maxRssMb?: number;
  /** The most that it may have held at any time until then. */
  maxPeakMb?: number;
}

/** Fails if the process holds more; small attacks weigh less than what a collection leaves to chance. */
export function weigh({ rssMb }: Pick<Totals, "rssMb">, maxMb: number): void {
  assert(!IS_FULL || rssMb <= maxMb, `${rssMb} MB are held, ${maxMb} MB are allowed`);
}

/** A server in its own process. */
export class Target implements AsyncDisposable {
  #totalsUrl = "";

  private constructor(readonly server: ServerProcess) {}

  /** Starts it with flags of `main.ts`, and in this environment. */
  static async start(flags: string[] = [], env: Record<string, string> = {}): Promise<Target> {
    const server = await ServerProcess.start(["--host", "127.0.0.1", ...flags], {
      script: "tests/attack/server.ts",
      env: { ...(IS_FULL && { FULL_SIZE: "1", DENO_V8_FLAGS: "--expose-gc" }), ...env },
    });
    const target = new Target(server);
    target.#totalsUrl = (await server.line(/^totals: /)).replace("totals: ", "");
    return target;
  }

  get url(): string {
    return this.server.url;
  }

  get ws(): string {
    return this.server.ws;
  }

  /** A TCP connection to it. */
  dial(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(this.url).port) });
  }

  /** A raw WebSocket to a path. */
  open(path: string, headers: Record<string, string> = {}): Promise<RawClient> {
    return RawClient.open(this.ws + path, headers);
  }

  async totals(): Promise<Totals> {
    return await (await fetch(this.#totalsUrl)).json();
  }

  /** The totals when they have become so. Fails with the last ones. */
  async until(what: string, isSo: (totals: Totals) => boolean): Promise<Totals> {
    return await eventually(() => this.totals(), isSo, what);
  }

  /**
   * Runs an attack while an innocent pair chats. Afterwards the pair has lost nothing, the server
   * answers, its totals are back at zero, no defect was logged, and its memory is within bounds.
   */
  async endure(
    name: string,
    attack: () => Promise<void>,
    { maxRssMb = 250, maxPeakMb = Infinity }: Aftermath = {},
  ): Promise<Totals> {
    const before = await this.totals();
    const start = performance.now();
    using pair = await InnocentPair.start(this.ws);
    await attack();
    const { messages, p50Ms, p99Ms, maxMs } = await pair.stop();
    const seconds = (performance.now() - start) / 1_000;
    await this.#answers();
    const after = await this.until("the totals are not back at zero", (totals) => {
      const { clients, held, heldHere, rooms, members, connections } = totals;
      const counts = [clients, held, heldHere, rooms, members, ...Object.values(connections)];
      return counts.every((count) => count === 0);
    });
    const round = (ms: number) => ms.toFixed(1);
    const report = (text: string) => IS_FULL && console.log(text);
    report(
      `  ${name}: ${round(seconds)} s, innocent pair p50 ${round(p50Ms)} p99 ${round(p99Ms)} max ` +
        `${round(maxMs)} ms over ${messages} messages, server CPU ` +
        `${round(after.cpuSeconds - before.cpuSeconds)} s, memory ${Math.round(before.rssMb)} → ` +
        `${Math.round(after.rssMb)} MB, at most ${Math.round(after.peakRssMb)} MB`,
    );
    assertEquals(after.errors, []);
    assertEquals(Object.keys(after.refusals).filter((code) => !REFUSALS.has(code)), []);
    weigh(after, maxRssMb);
    weigh({ rssMb: after.peakRssMb }, maxPeakMb);
    return after;
  }

  async #answers(): Promise<void> {
    const { status, body } = await soon(fetch(`${this.url}/healthz`), "/healthz");
    await body?.cancel();
    assertEquals(status, 200);
    await using client = await Client.open(`${this.ws}/echo`);
    client.send("x");
    assertEquals(await client.next(), "Echo: x");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

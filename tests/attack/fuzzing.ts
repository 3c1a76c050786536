/**
 * A fuzzer of frames, messages and requests: 125,000 at full size. The same SEED plays the same again.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { ERROR_TEXTS } from "../../handlers/protocol/encode.ts";
import { OPCODE } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { fuzzFrame, fuzzRawFrame, fuzzRequest, ROOMS } from "./fuzz.ts";
import { Random } from "../support/random.ts";
import { SEED, sized } from "../support/run.ts";
import { Target } from "./target.ts";
import { test } from "./attack_step.ts";

const MESSAGES = sized(4_000, 100_000);
const RAW_FRAMES = sized(1_500, 20_000);
const REQUESTS = sized(400, 5_000);
const FUZZERS = 16;
/** So many frames are sent before the fuzzer asks whether they are read. */
const ROUND = 100;

/** Texts that the server may say when it refuses. */
const TEXTS = new Set<string>(Object.values(ERROR_TEXTS));
const TYPES = new Set(["welcome", "chat", "status", "ack", "members", "pong", "error", "bye"]);

/** Holds what a socket hears against the protocol: known types, known texts, no gap in any room. */
class Judge {
  /** By room: the number of the last message. */
  #heard = new Map<string, { epoch: string; seq: number }>();

  constructor(readonly isV1: boolean) {}

  hear(frame: string): void {
    for (const line of this.isV1 ? frame.split("\n") : [frame]) {
      const { type, room, seq, epoch, code, message } = JSON.parse(line);
      assert(TYPES.has(type), line);
      if (type === "error") assert(TEXTS.has(message) && (!this.isV1 || code in ERROR_TEXTS), line);
      if (!this.isV1) assert(["chat", "status", "error"].includes(type), line);
      else if (type === "welcome") this.#heard.set(room, { epoch, seq });
      else if (type === "chat") {
        const last = this.#heard.get(room)!;
        assertEquals(seq, ++last.seq, `a gap in ${room}`);
      }
    }
  }
}

/** A socket that plays frames in rounds, and checks all that it hears. */
class Fuzzer {
  readonly #judge: Judge;
  readonly #socket: WebSocket;
  #error: unknown;
  #answered = Promise.withResolvers<void>();
  /** Objects sent, as the server counts them. */
  sent = 0;

  constructor(ws: string, readonly isV1: boolean, room: string) {
    this.#judge = new Judge(isV1);
    this.#socket = new WebSocket(`${ws}/chat/${room}`, isV1 ? "parley.v1" : []);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onmessage = ({ data }) => this.#hear(data);
    this.#socket.onclose = ({ code, reason }) => this.#fail(`closed with ${code} ${reason}`);
    this.#socket.onopen = () => this.#answered.resolve();
  }

  /** Sends a round and waits until the server has read it. */
  async play(frames: (string | Uint8Array<ArrayBuffer>)[]): Promise<void> {
    await this.#settled();
    this.#answered = Promise.withResolvers();
    for (const frame of frames) this.#send(frame);
    // Plain sockets cannot ping: this name is their mark, and everybody hears it.
    if (this.isV1) this.#send('{"type":"ping","id":"end of round"}');
    else this.#send(`{"type":"join","name":"${this.#mark}"}`);
    await this.#settled();
  }

  async end(): Promise<void> {
    await this.#settled();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.onclose = () => resolve();
    this.#socket.close();
    await soon(promise, "the end of a fuzzer");
  }

  readonly #mark = `mark ${crypto.randomUUID()}`;

  #send(frame: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(frame);
    this.sent += this.isV1 && typeof frame === "string" ? frame.split("\n").length : 1;
  }

  #hear(data: string | ArrayBuffer): void {
    if (typeof data !== "string") return;
    try {
      this.#judge.hear(data);
    } catch (error) {
      this.#fail(error);
    }
    if (data.includes(this.isV1 ? '"id":"end of round"' : this.#mark)) this.#answered.resolve();
  }

  #fail(error: unknown): void {
    this.#error ??= error;
    this.#answered.resolve();
  }

  async #settled(): Promise<void> {
    await soon(this.#answered.promise, "the server's answer to a round");
    if (this.#error) throw this.#error;
  }
}

test(`a fuzzer of ${MESSAGES} messages is answered by the protocol, seed ${SEED}`, async () => {
  const limits = ["--message-rate", "0", "--byte-rate", "0", "--join-rate", "0"];
  await using target = await Target.start(limits);
  const before = await target.totals();
  let sent = 0;
  const after = await target.endure(`fuzzed messages, seed ${SEED}`, async () => {
    await Promise.all(Array.from({ length: FUZZERS }, async (_, index) => {
      const random = new Random(SEED * 1_000 + index);
      const fuzzer = new Fuzzer(target.ws, index % 4 !== 0, ROOMS[index % ROOMS.length]);
      for (let left = Math.ceil(MESSAGES / FUZZERS); left > 0; left -= ROUND) {
        await fuzzer.play(Array.from({ length: Math.min(ROUND, left) }, () => fuzzFrame(random)));
      }
      await fuzzer.end();
      sent += fuzzer.sent;
    }));
  }, { maxRssMb: 500 });
  // What the innocent pair said is the rest.
  const read = after.messagesIn - before.messagesIn;
  assert(read >= sent && read < sent + 10_000, `${sent} were sent, ${read} were read`);
});

test(`a fuzzer of ${RAW_FRAMES} raw frames below WebSocket, seed ${SEED}`, async () => {
  await using target = await Target.start();
  await target.endure(`fuzzed raw frames, seed ${SEED}`, async () => {
    let left = RAW_FRAMES;
    await Promise.all(Array.from({ length: 20 }, async (_, index) => {
      const random = new Random(SEED * 1_000 + 500 + index);
      while (left > 0) {
        const path = random.pick(["/echo", "/chat/a", "/chat/b?history=10"]);
        using client = await target.open(path, { "sec-websocket-protocol": "parley.v1" });
        const reading = (async () => {
          while (await client.read().catch(() => undefined));
        })();
        const count = 1 + random.below(30);
        left -= count;
        try {
          for (let sent = 0; sent < count; sent++) await client.write(fuzzRawFrame(random));
          if (random.chance(0.5)) await client.send("", { opcode: OPCODE.close });
        } catch {
          // The server ended it.
        }
        client.drop();
        await reading;
      }
    }));
  }, { maxRssMb: 300 });
});

test(`a fuzzer of ${REQUESTS} requests, seed ${SEED}`, async () => {
  await using target = await Target.start();
  await target.endure(`fuzzed requests, seed ${SEED}`, async () => {
    let left = REQUESTS;
    await Promise.all(Array.from({ length: 20 }, async (_, index) => {
      const random = new Random(SEED * 1_000 + 900 + index);
      while (left-- > 0) {
        using connection = await target.dial();
        try {
          await connection.write(new TextEncoder().encode(fuzzRequest(random)));
          // Half of them wait for the answer, which may never come: the request may have no end.
          const waits = random.chance(0.5);
          const patience = setTimeout(() => connection.close(), 20);
          if (waits) await connection.read(new Uint8Array(4_096));
          clearTimeout(patience);
        } catch {
          // The server ended it, or waits for more.
        }
      }
    }));
  }, { maxRssMb: 300 });
});

test("the same seed says the same", () => {
  const say = () => {
    const random = new Random(SEED);
    return Array.from({ length: 100 }, () => [
      fuzzFrame(random),
      fuzzRawFrame(random),
      fuzzRequest(random),
    ]);
  };
  assertEquals(say(), say());
});

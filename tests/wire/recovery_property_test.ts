/**
 * Whatever clients do and whenever their connections break: each sees a piece of the one order,
 * without gap and repeat, or is told.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import type { Cursor } from "../../handlers/protocol/position.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { subscribe } from "../../handlers/registry/membership.ts";
import { createTestApp } from "../support/fakes.ts";
import { sized } from "../support/run.ts";
import { Order, PlainViewer, Viewer } from "./recovery_model.ts";
import { sayAll } from "../support/v1.ts";

const RUNS = sized(500, 2_000);
const HISTORY_SIZE = 8;
const HISTORY_SECONDS = 20;
const MAX_QUEUE_BYTES = 3_000;

/** The last one reads events, the others speak `parley.v1`. */
const who = fc.nat({ max: 3 });
const room = fc.constantFrom("a", "b");
const count = fc.nat({ max: 4 });
const sizes = fc.array(fc.constantFrom(1, 100, 1_500), { minLength: 1, maxLength: 4 });
const isResuming = fc.constantFrom(true, true, true, false);
const isLost = fc.constantFrom(false, false, true);

/** What may happen, and how often. */
const step = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constant("connect" as const), who, room, isResuming) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("hear" as const), who, room, isResuming) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("leave" as const), who, room) },
  { weight: 8, arbitrary: fc.tuple(fc.constant("say" as const), who, room, sizes, isLost) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("post" as const), room, count) },
  { weight: 5, arbitrary: fc.tuple(fc.constant("read" as const), who, count) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("drop" as const), who, count) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("stick" as const), who) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("plain" as const), room) },
  { weight: 6, arbitrary: fc.tuple(fc.constant("end turn" as const)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("wait" as const), fc.constantFrom(9, 60)) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A server of fakes, and its clients. */
class World {
  readonly turn = new Turn(() => {});
  readonly app = createTestApp({
    turn: this.turn,
    settings: {
      HISTORY_SIZE,
      HISTORY_SECONDS,
      MAX_QUEUE_BYTES,
      MESSAGE_RATE: 0,
      BYTE_RATE: 0,
      JOIN_RATE: 0,
    },
  });
  readonly order = new Order(this.app.engine, () => this.app.clock.now());
  readonly viewers = Array.from({ length: 4 }, (_, index) => {
    return new Viewer(this.order, `the secret of client ${index}`);
  });
  plain?: PlainViewer;
  #lastText = 0;

  async connect(viewer: Viewer, room: string, isResuming: boolean): Promise<void> {
    this.drop(viewer, 0);
    const after = viewer.ask(room, isResuming, (view) => this.isComplete(room, view));
    if (viewer === this.viewers[3]) {
      subscribe(this.app.registry.room(room), viewer.openStream(this.app.registry), { after });
      return;
    }
    const query = after === undefined ? "" : `?after=${after}`;
    viewer.socket = await this.app.connect(`/chat/${room}${query}`, { dialect: "v1" });
    viewer.socket.say({ type: "join", name: "n", session: viewer.session });
  }

  hear(viewer: Viewer, room: string, isResuming: boolean): void {
    if (!viewer.socket || viewer.rooms.has(room)) return;
    // With other rooms' messages on the way, less fits.
    const after = viewer.ask(room, isResuming, () => false);
    viewer.socket.say({ type: "join", name: "n", room, after, session: viewer.session });
  }

  leave(viewer: Viewer, room: string): void {
    if (viewer.rooms.delete(room)) viewer.socket?.say({ type: "leave", room });
  }

  /** Says messages in one frame. A lost one never arrives: the connection breaks before. */
  say(viewer: Viewer, room: string, sizes: number[], isLost: boolean): void {
    if (!viewer.socket || !viewer.rooms.has(room) || !viewer.pieces.has(room)) return;
    const lines = sizes.map((size) => viewer.say(room, this.text(size)));
    if (isLost) this.drop(viewer, 1);
    else sayAll(viewer.socket, lines);
  }

  post(room: string, count: number): void {
    for (let index = 0; index <= count; index++) {
      const message = JSON.stringify(this.text(200));
      this.app.engine.publish(room, { sender: "cron", message });
    }
  }

  read(viewer: Viewer, count: number): void {
    const lines = viewer.read(count);
    if (viewer.socket && lines.length > 0) sayAll(viewer.socket, lines);
  }

  /** Breaks a connection: of what is on its way, `count` frames arrive. */
  drop(viewer: Viewer, count: number): void {
    const { socket, stream } = viewer;
    viewer.read(count);
    stream?.drop();
    viewer.forget();
    socket?.drop();
  }

  stick({ socket }: Viewer): void {
    if (socket) socket.isStuck = true;
  }

  async connectPlain(room: string): Promise<void> {
    this.plain?.finish();
    this.plain?.socket.end();
    this.plain = new PlainViewer(this.order, room, await this.app.connect(`/chat/${room}`));
  }

  /** Whether all behind a place is kept and fits a replay. */
  isComplete(room: string, view: Cursor): boolean {
    const missed = this.order.since(room, view);
    const keptSince = this.app.clock.now() - HISTORY_SECONDS * 1_000;
    return missed !== undefined && missed.times.length <= HISTORY_SIZE &&
      missed.times.every((time) => time >= keptSince) && missed.bytes <= MAX_QUEUE_BYTES / 2;
  }

  text(size: number): string {
    return String(++this.#lastText).padEnd(size, ".");
  }

  /** Lets go of the connections that the server closed. */
  dropEvicted(): void {
    for (const viewer of this.viewers) {
      if (viewer.socket?.closes.length) this.drop(viewer, 1);
    }
  }

  /** Everybody reads to the end: nothing is missing. */
  finish(): void {
    this.plain?.finish();
    for (let round = 0; round < 3; round++) {
      this.turn.flush();
      this.dropEvicted();
      for (const viewer of this.viewers) this.read(viewer, Infinity);
    }
    for (const { rooms, views, unacked } of this.viewers) {
      for (const room of rooms) assertEquals(views.get(room), this.order.head(room));
      const open = unacked.values().filter(({ room }) => rooms.has(room)).toArray();
      assertEquals(open, [], "every message that was sent is acked");
    }
  }
}

async function run(world: World, step: Step): Promise<void> {
  switch (step[0]) {
    case "connect":
      return await world.connect(world.viewers[step[1]], step[2], step[3]);
    case "hear":
      return world.hear(world.viewers[step[1]], step[2], step[3]);
    case "leave":
      return world.leave(world.viewers[step[1]], step[2]);
    case "say":
      return world.say(world.viewers[step[1]], step[2], step[3], step[4]);
    case "post":
      return world.post(step[1], step[2]);
    case "read":
      return world.read(world.viewers[step[1]], step[2]);
    case "drop":
      return world.drop(world.viewers[step[1]], step[2]);
    case "stick":
      return world.stick(world.viewers[step[1]]);
    case "plain":
      return await world.connectPlain(step[1]);
    case "end turn":
      return world.turn.flush();
    case "wait":
      return world.app.clock.tick(step[1] * 1_000);
  }
}

Deno.test("every client's view is a gap-free, repeat-free piece of the one order, or it is told", async () => {
  const seen = { recovered: 0, gaps: 0, evictions: 0, repeats: 0 };
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 120, size: "max" }),
      async (steps) => {
        const world = new World();
        for (const step of steps) {
          await run(world, step);
          world.dropEvicted();
        }
        world.finish();
        const { recoveries, closes } = world.app.registry.counters;
        seen.recovered += recoveries.complete;
        seen.gaps += recoveries.partial;
        seen.evictions += closes.tooSlow;
        seen.repeats += world.order.repeatCount;
      },
    ),
    { numRuns: RUNS },
  );
  // Schedules in which nothing of this happens would prove nothing.
  for (const [what, times] of Object.entries(seen)) assert(times > RUNS / 100, `${times} ${what}`);
});

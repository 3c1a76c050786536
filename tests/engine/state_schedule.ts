/**
 * Random schedules of a room's state on any engine, against a model: whatever is set, removed, bound,
 * timed, repeated, cut, resumed or killed, every subscriber has the room's map at each rev it is told.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Change, type Engine, isRefusal, type Refusal } from "../../handlers/engine/engine.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import type { StateCursor } from "../../handlers/protocol/position.ts";
import type { Entry, RoomEvent, StateSpan } from "../../handlers/protocol/room_event.ts";
import type { FakeClock } from "../support/fakes.ts";
import { granted } from "../support/recorder.ts";
import { soon } from "../support/inbox.ts";
import { Random } from "../support/random.ts";
import { SEED } from "../support/run.ts";
import { ROOMY } from "./contract.ts";

const MAX_KEYS = 6;
/** So many schedules are played on one stage: whoever starts again reads the rooms of all before. */
const STAGE_SIZE = 200;
/** What an engine of a schedule is made with. */
export const SCHEDULE_LIMITS: HistoryLimits = { ...ROOMY, maxKeys: MAX_KEYS };

/** What a schedule is played on. */
export interface ScheduleStage {
  /** Engines of one system. */
  readonly nodes: Engine[];
  /** The time of all of them, where it can be moved. */
  readonly clock?: FakeClock;
  /** Ends a node, and puts another in its place; says whether it did. */
  kill?(index: number): Promise<boolean>;
}

type Model = Map<string, { value: string; rev: number; member?: string; endsAt: number }>;
type Values = Map<string, string>;

/** A subscriber on one node; it may be away, and resumes where it was. */
class Observer {
  isAway = false;
  map: Values = new Map();
  #rev = 0;
  #epoch = "";
  #node?: Engine;
  /** Whether it hears each change in its order. */
  #isLive = false;
  #early: Entry[] = [];
  #onChange = () => {};

  constructor(readonly room: string, readonly history: Values[], readonly hint: string) {}

  #deliver(event: RoomEvent): void {
    if (event.type === "set") this.#early.push(event.entry);
    if (event.type === "reset") this.#isLive = false;
    this.#apply();
    this.#onChange();
  }

  leave(): void {
    this.isAway = true;
    this.#isLive = false;
  }

  /** Settles when it has the map of a rev, told or read. */
  async until(rev: number, node: Engine): Promise<void> {
    if (node !== this.#node) {
      this.#isLive = false;
      this.#node = node;
      // A node that is dead tells nobody anything.
      const deliver = (event: RoomEvent) => node === this.#node && this.#deliver(event);
      await granted(node.host(this.room, { subscriberCount: 1, deliver }));
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onChange = () => (!this.#isLive || this.#rev >= rev) && resolve();
    this.#onChange();
    await soon(promise, () => `${this.hint}: rev ${rev}, it has ${this.#rev}`);
    if (!this.#isLive) await this.#read(node);
    assertEquals(this.#rev, rev, this.hint);
  }

  async #read(node: Engine): Promise<void> {
    const span = await granted(node.state(this.room, { epoch: this.#epoch, rev: this.#rev }));
    if (span.since === undefined) this.map.clear();
    for (const entry of span.entries) this.#put(entry);
    this.#epoch = span.epoch;
    this.#rev = span.rev;
    assertEquals(this.map, this.history[span.rev], `${this.hint}: resumed at ${span.rev}`);
    this.#isLive = true;
    this.#apply();
  }

  #apply(): void {
    if (!this.#isLive) return;
    for (const entry of this.#early.splice(0)) {
      if (entry.rev <= this.#rev) continue;
      assertEquals(entry.rev, this.#rev + 1, `${this.hint}: revs grow by 1`);
      this.#put(entry);
      this.#rev = entry.rev;
      const known = this.history[entry.rev] ??= new Map(this.map);
      assertEquals(this.map, known, `${this.hint}: live at ${entry.rev}`);
    }
  }

  #put({ key, value }: Entry): void {
    if (value === "null") this.map.delete(key);
    else this.map.set(key, value);
  }
}

/** Plays one schedule in a room of its own. */
export async function checkStateSchedule(
  random: Random,
  seed: number,
  stage: ScheduleStage,
): Promise<void> {
  const { nodes, clock } = stage;
  const hint = `seed ${seed}`;
  const room = `room-${seed}`;
  const model: Model = new Map();
  const history: Values[] = [new Map()];
  const members = new Map<string, number>();
  let rev = 0;
  let last: { change: Change; answer: StateCursor } | undefined;
  const now = () => clock?.now() ?? 0;
  const drop = (isGone: (kept: { member?: string; endsAt: number }) => boolean) => {
    for (const [key, kept] of model) {
      if (!isGone(kept)) continue;
      model.delete(key);
      rev++;
    }
  };
  const observers = nodes.map(() => new Observer(room, history, hint));

  const set = async (node: Engine, step: number) => {
    const key = `k${random.below(8)}`;
    const value = random.chance(0.25) ? "null" : JSON.stringify(random.below(1e6));
    const member = random.chance(0.3) ? random.pick([...members.keys(), undefined]) : undefined;
    const ttlSeconds = random.chance(0.3) ? (clock ? 1 : 1_000) + random.below(3) : undefined;
    const condition = random.chance(0.3) ? random.below(rev + 1) : undefined;
    const id = random.chance(0.3) ? { session: "s", id: `${step}` } : undefined;
    // A member is known on its own node.
    const at = member === undefined ? node : nodes[members.get(member)!];
    const change: Change = { key, value, sender: "Ann", if: condition, ttlSeconds, member, id };
    const known = model.get(key);
    const answer: StateCursor | Refusal = await at.set(room, change);
    if (isRefusal(answer)) {
      const isConflict = answer.refused === "rev_conflict";
      if (isConflict) assert(condition !== (known?.rev ?? 0), hint);
      else {assertEquals([answer.refused, model.size, known], [
          "too_many_keys",
          MAX_KEYS,
          undefined,
        ]);}
      if (isConflict) assertEquals(answer.rev, known?.rev ?? 0, hint);
      return;
    }
    assert(condition === undefined || condition === (known?.rev ?? 0), `${hint}: if`);
    if (value !== "null" || known) rev++;
    assertEquals(answer.rev, rev, hint);
    if (id) last = { change, answer };
    if (value === "null") model.delete(key);
    else {
      const endsAt = ttlSeconds === undefined ? Infinity : now() + 1_000 * ttlSeconds;
      model.set(key, { value, rev, member, endsAt });
    }
  };

  for (let step = 0; step < 25; step++) {
    const index = random.below(nodes.length);
    const observer = observers[index];
    const member = random.pick([...members.keys(), `${hint} m${step}`]);
    const what = random.below(8);
    if (what === 0 && !members.has(member)) {
      await granted(nodes[index].join(room, member, "Ann"));
      members.set(member, index);
    } else if (what === 1 && members.has(member)) {
      nodes[members.get(member)!].leave(room, member);
      members.delete(member);
      drop((kept) => kept.member === member);
    } else if (what === 2 && clock) {
      clock.tick(random.below(2_500));
      await nodes[index].state(room);
      drop(({ endsAt }) => endsAt <= now());
    } else if (what === 3) {
      if (observer.isAway) observer.isAway = false;
      // Somebody hears each change, but where answers come behind all that they tell of.
      else if (index > 0 || nodes.length === 1) observer.leave();
    } else if (what === 4 && random.chance(0.3) && await stage.kill?.(index)) {
      const gone = [...members].filter(([_, at]) => at === index).map(([member]) => member);
      gone.forEach((member) => members.delete(member));
      drop(({ member }) => member !== undefined && gone.includes(member));
    } else if (what === 5 && last) {
      assertEquals(await nodes[index].set(room, last.change), last.answer, `${hint}: a repeat`);
    } else await set(nodes[index], step);
    const values = new Map([...model].map(([key, { value }]) => [key, value]));
    assertEquals(history[rev] ?? values, values, `${hint} at ${rev}`);
    history[rev] = values;
    for (const [at, other] of observers.entries()) {
      if (!other.isAway) await other.until(rev, nodes[at]);
    }
  }
  const span = await granted<StateSpan>(nodes[0].state(room));
  assertEquals(
    span.entries.map(({ key, value, rev }) => [key, value, rev]),
    [...model].map(([key, { value, rev }]) => [key, value, rev]).sort(([a], [b]) =>
      a! < b! ? -1 : 1
    ),
  );
  for (const node of nodes) node.release(room);
}

/** Plays schedules, one after the other, each in a room of its own. */
export function schedules(
  name: string,
  count: number,
  make: (stack: AsyncDisposableStack) => Promise<ScheduleStage> | ScheduleStage,
  register: (name: string, fn: () => Promise<void>) => void = Deno.test,
): void {
  const text = `any schedule on ${name} leaves every subscriber with the room's map, at each rev`;
  register(text, async () => {
    for (let done = 0; done < count; done += STAGE_SIZE) {
      await using stack = new AsyncDisposableStack();
      const stage = await make(stack);
      for (let i = done; i < Math.min(count, done + STAGE_SIZE); i++) {
        const seed = SEED * 10_000 + i;
        await checkStateSchedule(new Random(seed), seed, stage);
      }
    }
  });
}

/**
 * The durable engine: the memory engine, and a file that has everything it keeps.
 *
 * The memory engine decides at once. What changed is committed to the file, and nobody is answered
 * or hears of anything before: what was seen or acked survives the end of the process.
 */
import { EVENTS_ROOM } from "../protocol/parse.ts";
import type { Head } from "../protocol/position.ts";
import type { RoomEvent } from "../protocol/room_event.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { OptionError } from "../util/option_error.ts";
import { Committer } from "./committer.ts";
import { type Engine, isRefusal, type Refusal, UNAVAILABLE } from "./engine.ts";
import { HostGate } from "./host_gate.ts";
import { leftBehind } from "./member_events.ts";
import { MemoryEngine } from "./memory.ts";
import { MemoryRooms } from "./memory_rooms.ts";
import { restoreInto } from "./restore.ts";
import type { HistoryLimits } from "./room_rules.ts";
import type { TakeEntry } from "./sqlite.ts";
import { openStore, type Store } from "./store.ts";

/** What may wait for a commit; beyond it all is `unavailable`. */
const MAX_WAITING_BYTES = 64_000_000;
/** What an answer or an event is counted with beside its text. */
const EFFECT_BYTES = 300;

/**
 * Makes the durable engine over a file, with everything that the file has.
 * @param open opens the store in the file, and gives `take` what it has
 * @throws {OptionError} if the file cannot be used, or another process uses it
 */
export async function createDurableEngine(
  file: string,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
  open: (file: string, take: TakeEntry) => Promise<Store> = openStore,
): Promise<Engine> {
  const committer = new Committer(clock, log);
  const rooms = new MemoryRooms(limits, clock, committer);
  try {
    const store = await open(file, restoreInto(rooms, committer));
    rooms.restored();
    committer.start(store);
  } catch (error) {
    throw new OptionError("file", `${(error as Error).message}, ${file}`);
  }
  const memory = new MemoryEngine(rooms, clock);
  // Members are not kept: whom the restart took has left.
  const { changes, lastNumber } = leftBehind(memory.read(EVENTS_ROOM).chats);
  rooms.lastEventNumber = lastNumber;
  for (const change of changes) memory.tell(change);
  return behind(committer, memory);
}

/** The memory engine behind a committer: what it answers, and tells its hosts, waits for the commit. */
function behind(committer: Committer, memory: MemoryEngine): Engine {
  /** What the hosts hear events through: behind the commit, and behind the head. */
  const gates = new Map<string, HostGate>();
  let isClosed = false;
  const isReady = () => !isClosed && !committer.isFailing;
  const isBusy = () => !isReady() || committer.waitingBytes > MAX_WAITING_BYTES;

  /** What is asked, once everything is committed that it may tell of; `unavailable` if that fails. */
  function answer<T>(ask: () => T, textLength = 0): MaybePromise<T | Refusal> {
    if (isBusy()) return UNAVAILABLE;
    const value = ask();
    if (committer.isSettled) return value;
    const { promise, resolve } = Promise.withResolvers<T | Refusal>();
    committer.after({
      run: () => resolve(value),
      refuse: () => resolve(UNAVAILABLE),
      bytes: EFFECT_BYTES + 2 * textLength,
    });
    return promise;
  }

  function deliver(gate: HostGate, event: RoomEvent): void {
    let bytes = EFFECT_BYTES;
    if (event.type === "binary") bytes += event.bytes.length;
    if (event.type === "note") bytes += 2 * event.note.message.length;
    committer.after({ run: () => gate.deliver(event), bytes });
  }

  function release(room: string): void {
    gates.get(room)?.close();
    gates.delete(room);
    memory.release(room);
  }

  return {
    name: "durable",
    host(room, host, address) {
      if (isBusy()) return UNAVAILABLE;
      const gate = new HostGate(host);
      const head = memory.host(room, {
        deliver: (event) => deliver(gate, event),
        get subscriberCount() {
          return host.subscriberCount;
        },
      }, address);
      if (isRefusal(head)) return head;
      gates.get(room)?.close();
      gates.set(room, gate);
      return chain(answer<Head | Refusal>(() => head), (answer) => {
        if (!isRefusal(answer)) gate.open();
        else if (gates.get(room) === gate) release(room);
        return answer;
      });
    },
    release,
    publish: (room, draft) => answer(() => memory.publish(room, draft), draft.message.length),
    set: (room, change) => answer(() => memory.set(room, change), change.value.length),
    state: (room, since) => answer(() => memory.state(room, since)),
    relay(room, event) {
      // What is not kept doesn't wait for a store that fails: nothing would bound it.
      if (!isBusy()) memory.relay(room, event);
    },
    join(room, member, name, user) {
      if (isBusy()) return UNAVAILABLE;
      const was = memory.memory.get(room)?.presence?.nameOf(member);
      return chain(answer(() => memory.join(room, member, name, user)), (refusal) => {
        if (refusal && was === undefined) memory.leave(room, member);
        else if (refusal) memory.join(room, member, was!, user);
        return refusal;
      });
    },
    leave: (room, member) => memory.leave(room, member),
    members: (room) => answer(() => memory.members(room)),
    read: (...args) => answer(() => memory.read(...args)),
    rooms: (after, limit) => answer(() => memory.rooms(after, limit)),
    isReady,
    stats: () => memory.stats(),
    async close() {
      if (isClosed) return;
      isClosed = true;
      await committer.close();
      await memory.close();
    },
  };
}

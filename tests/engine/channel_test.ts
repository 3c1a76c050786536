import { assertEquals } from "@std/assert";
import { Channel, type ChannelOptions } from "../../handlers/engine/channel.ts";

/** What the far end answers. */
interface Far {
  double(value: number): number;
  later(value: number): Promise<number>;
  note(value: unknown): void;
}

/** What the near end answers. */
interface Near {
  hear(value: number): void;
}

const UNAVAILABLE = { refused: "unavailable" as const };

/** The near end of a channel; `far` is the port of the other. */
function makeNear({ hear = () => {}, ...options }: Partial<Near & ChannelOptions<Near>> = {}) {
  const { port1, port2: far } = new MessageChannel();
  const channel = new Channel<Near, Far>(port1, { calls: { hear }, ...options });
  const close = () => {
    channel.close();
    far.close();
  };
  return { channel, far, [Symbol.dispose]: close };
}

/** A far end, and what was noted there. */
function makeFar(port: MessagePort, onClose?: () => void) {
  const noted: unknown[] = [];
  const channel: Channel<Far, Near> = new Channel<Far, Near>(port, {
    calls: {
      double(value) {
        queueMicrotask(() => channel.notify("hear", value));
        return value * 2;
      },
      later: (value) => Promise.resolve(value + 1),
      note: (value) => void noted.push(value),
    },
    onClose,
  });
  return { channel, noted };
}

/** The next messages of a port, raw. */
function messages(port: MessagePort, count: number): Promise<unknown[][]> {
  const all: unknown[][] = [];
  return new Promise((resolve) => {
    port.onmessage = ({ data }) => {
      if (all.push(data) === count) resolve(all);
    };
  });
}

Deno.test("call() is answered by value or by promise; calls arrive in their order", async () => {
  using near = makeNear();
  const far = makeFar(near.far);
  near.channel.notify("note", 1);
  const doubled = near.channel.call("double", 21);
  near.channel.notify("note", [2, "two"]);
  assertEquals(await doubled, 42);
  assertEquals(far.noted, [1, [2, "two"]]);
  assertEquals(await near.channel.call("later", 1), 2);
});

Deno.test("a turn's calls travel in one flat array", async () => {
  using near = makeNear();
  const arrived = messages(near.far, 2);
  near.channel.notify("note", 1);
  await Promise.resolve();
  near.channel.notify("note", 2);
  await new Promise((resolve) => setImmediate(resolve));
  near.channel.notify("note", 3);
  assertEquals((await arrived).map((message) => message.slice(1)), [
    ["note", 0, 1, 1, "note", 0, 1, 2],
    ["note", 0, 1, 3],
  ]);
});

Deno.test("close() sends what waits, tells the other side, and leaves no call without an answer", async () => {
  using near = makeNear();
  const { channel } = near;
  const closed = Promise.withResolvers<void>();
  const far = makeFar(near.far, closed.resolve);
  const pending = channel.call("double", 1);
  channel.notify("note", 2);
  channel.close();
  assertEquals(await pending, UNAVAILABLE);
  await closed.promise;
  assertEquals(far.noted, [2]);
  assertEquals(await channel.call("double", 1), UNAVAILABLE);
  assertEquals(await far.channel.call("hear", 1), UNAVAILABLE);
  channel.notify("note", 3);
});

Deno.test("a channel is full while the other side confirms nothing, and refuses calls", async () => {
  let fullCount = 0;
  using near = makeNear({ maxUnconfirmedBytes: 1_000_000, onFull: () => fullCount++ });
  const { channel } = near;
  const values = ["x".repeat(400_000), new Uint8Array(400_000), { nested: ["x".repeat(400_000)] }];
  const full = values.map((value) => {
    channel.notify("note", value);
    return channel.isFull;
  });
  assertEquals([full, fullCount], [[false, false, true], 1]);
  assertEquals(await channel.call("double", 1), UNAVAILABLE);
  await new Promise((resolve) => setImmediate(resolve));
  assertEquals(channel.isFull, true);

  const far = makeFar(near.far);
  const confirmed = new Promise((resolve) => far.channel.port.addEventListener("message", resolve));
  await confirmed;
  // What the far end sends behind its confirmation comes after it.
  const { promise, resolve } = Promise.withResolvers<void>();
  channel.options.calls.hear = () => resolve();
  far.channel.notify("hear", 1);
  await promise;
  assertEquals([channel.isFull, far.noted.length], [false, 3]);
  assertEquals(await channel.call("double", 2), 4);
});

Deno.test("what is sent for long is confirmed on the way", async () => {
  using near = makeNear({ maxUnconfirmedBytes: 1_000_000 });
  makeFar(near.far);
  for (let i = 0; i < 10; i++) {
    near.channel.notify("note", "x".repeat(300_000));
    assertEquals(await near.channel.call("later", i), i + 1);
  }
});

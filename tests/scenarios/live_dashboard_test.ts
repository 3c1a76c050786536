/**
 * A live dashboard: machines post their figures over HTTP, and pages watch them, some by
 * `client.js`, some by an EventSource. Who arrives sees the last figure at once.
 */
import { assertEquals } from "@std/assert";
import { connect, type Message } from "../../handlers/client/client.js";
import { EventReader } from "../support/event_source.ts";
import { Inbox } from "../support/inbox.ts";
import { post, startServer, type TestServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const WATCHERS = 10;
const FIGURES = 50;

/** Posts one figure, as any program that speaks HTTP can. */
async function report(server: TestServer, load: number): Promise<void> {
  const { status } = await post(server, "/rooms/plant/messages", { message: { load } });
  assertEquals(status, 202);
}

/** What a watcher was told. */
interface Figure {
  load: number;
}

Deno.test("live dashboard: HTTP in, v1 and EventSource out, the last value on arrival", async () => {
  await using server = await startServer();
  await report(server, 0);

  // Ten pages with the client, and ten with an EventSource, all arrive late.
  const pages = range(1, WATCHERS).map(() => {
    const figures = new Inbox<Figure>("a figure");
    const client = connect(`${server.ws}/chat/plant`, {
      history: 1,
      onMessage: ({ message }: Message) => figures.push(message as Figure),
    });
    return { figures, [Symbol.dispose]: () => client.close() };
  });
  using stack = new DisposableStack();
  pages.forEach((page) => stack.use(page));
  const streams = await Promise.all(
    range(1, WATCHERS).map(async () => {
      const response = await fetch(`${server.url}/rooms/plant/events?history=1`);
      const reader = new EventReader(response);
      assertEquals((await reader.next()).event, "welcome");
      return reader;
    }),
  );
  await using streamStack = new AsyncDisposableStack();
  streams.forEach((stream) => streamStack.use(stream));

  // All of them show the last figure before anything new happens.
  for (const { figures } of pages) assertEquals((await figures.next()).load, 0);
  for (const stream of streams) assertEquals((await stream.nextData()).message.load, 0);

  // From now on everybody sees each figure, in the order of the posts.
  const watch = async (next: () => Promise<Figure>) => {
    for (const expected of range(1, FIGURES)) {
      assertEquals((await next()).load, expected);
    }
  };
  const watching = [
    ...pages.map(({ figures }) => watch(() => figures.next())),
    ...streams.map((stream) => watch(async () => (await stream.nextData()).message)),
  ];
  for (const load of range(1, FIGURES)) await report(server, load);
  await Promise.all(watching);
});

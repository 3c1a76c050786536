/**
 * Notifications: a room a user, that nobody else can hear. The shop publishes with a token of its
 * own; what it says while a user is offline is there when she comes back. That somebody of the shop is
 * writing to her counts only now: it is a note, which nothing keeps.
 */
import { assertEquals } from "@std/assert";
import { connect, type Message, type Note } from "../../handlers/client/client.js";
import { Proxy } from "../support/proxy.ts";
import { Inbox } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { post, startServer, type TestServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const USERS = 10;

/** A user may hear her own room, and say nothing anywhere. */
const userToken = (user: string) => sign({ sub: user, rooms: [`user:${user}`], speak: [] });

/** Publishes to a user, what is kept or a note; answers the status. */
async function notify(
  server: TestServer,
  token: string,
  user: string,
  message: unknown,
  kind: "messages" | "notes" = "messages",
) {
  const headers = { authorization: `Bearer ${token}` };
  const { status } = await post(server, `/rooms/user:${user}/${kind}`, { message }, headers);
  return status;
}

Deno.test("notifications: a room a user, tokens, delivered after being offline", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const { port } = new URL(server.url);
  await using network = new Proxy(Number(port));
  const shop = await sign({ sub: "shop", rooms: ["user:*"], publish: true });
  const users = range(1, USERS).map((number) => `u${number}`);

  // The first notification waits for those who have not yet come at all.
  for (const user of users) assertEquals(await notify(server, shop, user, "welcome"), 202);
  const phones = users.map((user) => {
    const inbox = new Inbox<unknown>(`a notification for ${user}`);
    const gone = Promise.withResolvers<void>();
    const client = connect(`ws://127.0.0.1:${network.port}`, {
      room: `user:${user}`,
      token: () => userToken(user),
      history: 20,
      onMessage: ({ message }: Message) => inbox.push(message),
      onNote: ({ message }: Note) => inbox.push(message),
      onConnection: (state) => state === "reconnecting" && gone.resolve(),
    });
    return { user, inbox, gone: gone.promise, [Symbol.dispose]: () => client.close() };
  });
  using stack = new DisposableStack();
  phones.forEach((phone) => stack.use(phone));
  for (const { inbox } of phones) assertEquals(await inbox.next(), "welcome");

  // Online: each user gets her own, at once, and sees before that somebody writes.
  const typing = { typing: true };
  for (const { user, inbox } of phones) {
    assertEquals(await notify(server, shop, user, typing, "notes"), 202);
    assertEquals(await inbox.next(), typing);
    assertEquals(await notify(server, shop, user, `for ${user}`), 202);
    assertEquals(await inbox.next(), `for ${user}`);
  }

  // Offline: the network is gone while the shop goes on. With it come the notifications, in order.
  network.targetPort = 1;
  network.cutAll();
  await Promise.all(phones.map(({ gone }) => gone));
  for (const { user } of phones) {
    await notify(server, shop, user, typing, "notes");
    for (const number of range(1, 3)) await notify(server, shop, user, `missed ${number}`);
  }
  network.targetPort = Number(port);
  // A phone tells its pages so, and the client need not wait for its next try.
  dispatchEvent(new Event("online"));
  for (const { inbox } of phones) {
    for (const number of range(1, 3)) assertEquals(await inbox.next(), `missed ${number}`);
  }
  assertEquals(phones.map(({ inbox }) => inbox.size), phones.map(() => 0));

  // Nobody hears another's room, and users publish nothing.
  const ann = await userToken("u1");
  const headers = { authorization: `Bearer ${ann}` };
  const other = await fetch(`${server.url}/rooms/user:u2/messages`, { headers });
  assertEquals([other.status, (await other.json()).code], [403, "forbidden"]);
  assertEquals(await notify(server, ann, "u1", "forged"), 403);
  const nobody = await fetch(`${server.url}/rooms/user:u1/events`);
  assertEquals([nobody.status, (await nobody.json()).code], [401, "no_token"]);
});

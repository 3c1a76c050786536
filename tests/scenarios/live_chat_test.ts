/**
 * Live chat: five people write while their network breaks again and again. The client comes back by
 * itself, and everybody ends with the same conversation: nothing lost, nothing twice. That somebody is
 * writing is a note: it comes before the message, or not at all.
 */
import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import { connect, type Message, type Receipt } from "../../handlers/client/client.js";
import { Proxy } from "../support/proxy.ts";
import { Inbox, Journal } from "../support/inbox.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const PEOPLE = ["Ann", "Bob", "Cem", "Dia", "Eve"];
const CUTS = 6;
const MESSAGES_BETWEEN_CUTS = 10;

/** A person with a chat window. */
function enter(url: string, name: string) {
  const heard = new Journal<Message>();
  const gaps: unknown[] = [];
  /** Who is writing now, as the window shows it. */
  const writing = new Inbox<string>("who is writing");
  const there = Promise.withResolvers<void>();
  let returns = 0;
  let isAway = false;
  const client = connect(url, {
    name,
    onWelcome: () => there.resolve(),
    onMessage: (message) => heard.add(message),
    onNote: ({ sender, message }) => {
      assertEquals(message, { typing: true });
      writing.push(sender);
    },
    onGap: (gap) => gaps.push(gap),
    onConnection: (state) => {
      if (state === "open" && isAway) returns++;
      isAway = state === "reconnecting";
    },
  });
  return {
    name,
    client,
    heard,
    gaps,
    writing,
    there: there.promise,
    get returns() {
      return returns;
    },
    [Symbol.dispose]: () => client.close(),
  };
}

Deno.test("live chat: connections break all the time, and nothing is lost or doubled", async () => {
  await using server = await startServer({ HISTORY_SIZE: 1_000 });
  await using proxy = new Proxy(Number(new URL(server.url).port));
  const people = PEOPLE.map((name) => enter(`ws://127.0.0.1:${proxy.port}/chat/ops`, name));
  using stack = new DisposableStack();
  people.forEach((person) => stack.use(person));
  await Promise.all(people.map(({ there }) => there));

  const [ann, ...others] = people;
  ann.client.note({ typing: true });
  for (const { writing } of others) assertEquals(await writing.next(), "Ann");

  const receipts: Promise<Receipt>[] = [];
  const say = (count: number) => {
    for (const { name, client } of people) {
      client.note({ typing: true });
      for (const _ of range(1, count)) {
        receipts.push(client.send(`${name} says ${receipts.length + 1}`));
      }
    }
  };
  for (const _ of range(1, CUTS)) {
    say(MESSAGES_BETWEEN_CUTS / 2);
    // Everybody is there; what they write now is on its way when the cable goes.
    await Promise.all(receipts);
    say(MESSAGES_BETWEEN_CUTS / 2);
    proxy.cutAll();
  }
  await Promise.all(receipts);
  const total = receipts.length;

  const conversations = await Promise.all(people.map(async ({ heard }) => {
    await heard.find(({ seq }) => seq === total, `message ${total}`);
    return heard.entries.map(({ seq, sender, message }) => ({ seq, sender, message }));
  }));
  assertEquals(conversations[0].map(({ seq }) => seq), range(1, total));
  assertEquals(new Set(conversations[0].map(({ message }) => message)).size, total);
  for (const conversation of conversations) assertEquals(conversation, conversations[0]);
  for (const { gaps, returns } of people) {
    assertEquals(gaps, []);
    assertGreaterOrEqual(returns, CUTS);
  }
});

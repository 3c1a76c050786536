/**
 * Takes the README's two pictures: `deno task screenshots`. Needs Debian's `chromium` and `pngquant`.
 *
 * @module
 */
import { connect } from "../../handlers/client/client.js";
import { launch } from "../support/browser.ts";
import { startServer, type TestServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";
import { Visitor } from "../support/visitors.ts";

const SIZE = { width: 800, height: 560 };
const COLORS = 64;
const MAX_BYTES = 60_000;
const LOAD_SECONDS = 50;

const TALK: [who: string, text: string][] = [
  ["Noor", "Deploy of 2.4 is out. Error rate looks flat so far."],
  ["Ilya", "p99 on /checkout went from 180 to 140 ms 🎉"],
  ["Ann", "Nice! Was that the new index?"],
  ["Ilya", "Yes, details in https://wiki.example.com/perf/checkout-index"],
  ["Mei", "One customer reports an old price in the basket.\nProbably the cache, looking at it."],
  ["Ann", "Shall I roll back, or wait for you?"],
  ["Mei", "Wait two minutes, it was one node with a stale key. Fixed."],
  ["Noor", "Confirmed, the basket is right again. Thanks!"],
  ["Ann", "Great."],
  ["Ann", "I'll write it into the log."],
];

/** Makes a picture small, and tells its size. */
async function save(name: string, png: Uint8Array<ArrayBuffer>): Promise<void> {
  const path = new URL(`${name}.png`, import.meta.url).pathname;
  const pngquant = new Deno.Command("pngquant", {
    args: [`${COLORS}`, "--strip", "--nofs", "--speed", "1", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const [{ stdout, success }] = await Promise.all([
    pngquant.output(),
    new Blob([png]).stream().pipeTo(pngquant.stdin),
  ]);
  if (!success || stdout.length > MAX_BYTES) throw new Error(`Cannot shrink ${path} enough`);
  await Deno.writeFile(path, stdout);
  console.log(`${path}: ${stdout.length} bytes`);
}

/** A conversation, as Ann sees it. */
async function chat(server: TestServer, ann: Visitor): Promise<void> {
  await ann.page.goto(`${server.url}/?room=ops`);
  const others = Map.groupBy(TALK, ([who]) => who).keys().filter((who) => who !== "Ann");
  const clients = new Map<string, ReturnType<typeof connect>>();
  for (const name of others) {
    const client = connect(`${server.ws}/chat/ops`, { name });
    clients.set(name, client);
    await client.members();
  }
  await ann.join("Ann");
  await ann.sees("#rename", "Ann");
  for (const [who, text] of TALK) {
    if (who === "Ann") {
      await ann.page.fill("#text", text);
      await ann.page.click("#say > button");
    } else await clients.get(who)!.send(text);
    await ann.sees(".chat:not(.pending) .words", text.split("\n")[0]);
  }
  clients.get("Mei")!.note({ typing: true });
  await ann.sees("#typing", "Mei is writing …");
  await ann.page.focus("#text");
  await save("chat", new Uint8Array(await ann.page.screenshot()));
  for (const client of clients.values()) client.close();
}

/** A server with something to do: rooms of all sizes, in waves. */
async function dashboard(server: TestServer, viewer: Visitor): Promise<void> {
  await viewer.page.goto(`${server.url}/dashboard`);
  const streams = new AbortController();
  const clients: ReturnType<typeof connect>[] = [];
  // A warning of a busy machine is waited out.
  const isWell = () => viewer.value<boolean>(`health.dataset.state === "well"`);
  for (let second = 1; second <= LOAD_SECONDS || !(await isWell()); second++) {
    const due = performance.now() + 1_000;
    for (const index of range(clients.length + 1, Math.min(120, second * 4))) {
      clients.push(connect(`${server.ws}/chat/room-${index % 6}`, { name: `user ${index}` }));
      if (index % 10 === 0) {
        const { signal } = streams;
        const { body } = await fetch(`${server.url}/rooms/room-1/events`, { signal });
        body!.pipeTo(new WritableStream(), { signal }).catch(() => {});
      }
    }
    const each = 6 + 4 * Math.sin(second / 6) + Math.random();
    for (let round = 1; round <= each; round++) {
      await Promise.all(
        clients.map((client) => client.send("A message of usual length, more or less.")),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
  }
  await save("dashboard", new Uint8Array(await viewer.page.screenshot({ fullPage: true })));
  streams.abort();
  for (const client of clients) client.close();
}

if (Deno.args.length > 0) {
  console.log(`Takes the README's two pictures: chat.png and dashboard.png beside this file.

  deno task screenshots

It needs Debian's packages chromium and pngquant, and takes about a minute.`);
  Deno.exit(0);
}
// A machine that is busy with other work refuses nobody.
const server = await startServer({ MESSAGE_RATE: 0 });
const browser = await launch();
try {
  const page = await (await browser.newContext({ viewport: SIZE, colorScheme: "light" })).newPage();
  await chat(server, new Visitor(page));
  await dashboard(server, new Visitor(page));
} finally {
  await browser.close();
  await server[Symbol.asyncDispose]();
}

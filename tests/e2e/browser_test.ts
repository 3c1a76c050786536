/** The pages, as people use them in a browser. */
import axe from "npm:axe-core@4.14.1/axe.min.js" with { type: "text" };
import { assert, assertEquals, assertLess, assertMatch } from "@std/assert";
import { SignJWT } from "jose";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";
import { CONNECTION_ERRORS, pageTest, type Visitor, type World } from "../support/visitors.ts";

/** Puts messages into a room, as fast as the server takes them. */
async function publish({ server }: World, room: string, texts: string[]): Promise<void> {
  for (const text of texts) {
    const draft = { sender: "Robot", message: JSON.stringify(text) };
    await server.registry.engineOf(room).publish(room, draft);
  }
}

pageTest("two visitors chat, and see who comes and goes", async ({ visit }) => {
  const ann = await visit("/?room=ops");
  const bob = await visit("/?room=ops");
  // A screen reader finds its way, and reads out what comes.
  await ann.page.getByRole("log", { name: "Messages" }).waitFor();
  await ann.page.getByRole("textbox", { name: "Your name" }).waitFor();
  await ann.join("Ann");
  await bob.sees(".status", "Ann joined the chat.");
  await bob.join("Bob");
  await ann.sees(".status", "Bob joined the chat.");
  await ann.sees("#people", "2 here");
  await ann.page.click("#people");
  await ann.finds(`[...members.children].map((one) => one.textContent).join() === "Ann,Bob"`);

  await ann.say("Hello Bob");
  await bob.sees(".chat .words", "Hello Bob");
  await bob.sees(".chat .sender", "Ann");
  await bob.say("Hello Ann,\nhow are you?");
  await ann.sees(".words", "how are you?");
  for (const one of [ann, bob]) {
    assertEquals(await one.words(), ["Hello Bob", "Hello Ann,\nhow are you?"]);
    assertEquals(await one.page.locator(".own").count(), 1);
    assertMatch((await one.page.locator("time").first().textContent())!, /^\d{1,2}:\d\d/);
  }
  assertEquals(await bob.page.locator(".own .words").textContent(), "Hello Ann,\nhow are you?");

  await bob.page.close();
  await ann.sees(".status", "Bob left the chat.");
  await ann.sees("#people", "1 here");
  // Who comes later sees what was said.
  const cem = await visit("/?room=ops");
  await cem.sees(".words", "how are you?");
  assertEquals(await cem.words(), ["Hello Bob", "Hello Ann,\nhow are you?"]);
  // Who has joined is in again after a reload.
  await ann.page.reload();
  await cem.sees(".status", "Ann left the chat.");
  await cem.sees(".status", "Ann joined the chat.");
  await ann.say("Here I am again");
  await cem.sees(".words", "Here I am again");
});

pageTest("markup in names and messages stays text, addresses become links", async ({ visit }) => {
  const ann = await visit("/");
  const bob = await visit("/");
  const name = `<b onclick="alert(1)">A&amp;n</b>`;
  await ann.join(name);
  const texts = [
    `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`,
    `javascript:alert(1) data:text/html,x <a href="javascript:alert(1)">x</a>`,
    `See https://deno.com/a?b=1&c=<2>, (http://x.example/y). HTTP is not ftp://z`,
    `https://x.example/"onmouseover="alert(1)`,
  ];
  for (const text of texts) await ann.say(text);
  await bob.sees(".words", "onmouseover");
  for (const one of [ann, bob]) {
    assertEquals(await one.words(), texts);
    assertEquals(await one.page.locator(".sender").first().textContent(), name);
    await one.page.click("#people");
    await one.sees("#members li", name);
    assertEquals(await one.page.locator(":is(#messages, #members) :is(b, img, script)").count(), 0);
    const links = await one.value<string[]>(
      `[...document.querySelectorAll("#messages a")].map((a) => [a.href, a.rel].join(" "))`,
    );
    assertEquals(links, [
      "https://deno.com/a?b=1&c= noopener noreferrer nofollow",
      "http://x.example/y noopener noreferrer nofollow",
      "https://x.example/ noopener noreferrer nofollow",
    ]);
    assertMatch(await one.page.title(), /^(\(\d\) )?#lobby · Parley$/);
  }
});

pageTest("a server restart loses nothing, and the banner comes and goes", async ({ visit }) => {
  let server = await startServer();
  const { url } = server;
  const ann = await visit(`${url}/?room=ops`);
  const bob = await visit(`${url}/?room=ops`);
  await ann.join("Ann");
  await bob.join("Bob");
  await ann.say("before");
  await bob.sees(".words", "before");
  assertEquals(await ann.page.textContent("#banner"), "");

  await server[Symbol.asyncDispose]();
  for (const one of [ann, bob]) await one.sees("#banner", "Reconnecting …");
  // What is written now waits, in order.
  await ann.say("during 1");
  await ann.say("during 2");
  await bob.say("Bob too");
  await ann.sees(".own.pending .mark", "Sending …");
  assertEquals(await ann.page.locator(".pending").count(), 2);

  server = await startServer({ PORT: Number(new URL(url).port) });
  try {
    for (const one of [ann, bob]) {
      // The browser tells pages when its network is back: no need to wait for the next try.
      await one.value(`dispatchEvent(new Event("online"))`);
      await one.finds(`banner.textContent === ""`);
      await one.finds(`document.querySelectorAll(".words").length === 4`);
      await one.finds(`document.querySelector(".pending") === null`);
    }
    await ann.say("after");
    for (const one of [ann, bob]) {
      await one.finds(`document.querySelectorAll(".chat:not(.pending) .words").length === 5`);
    }
    const [annsWords, bobsWords] = [await ann.words(), await bob.words()];
    assertEquals(annsWords, bobsWords);
    assertEquals(annsWords.filter((text) => text !== "Bob too"), [
      "before",
      "during 1",
      "during 2",
      "after",
    ]);
    await ann.sees("#people", "2 here");
  } finally {
    await ann.page.close();
    await bob.page.close();
    await server[Symbol.asyncDispose]();
  }
}, CONNECTION_ERRORS);

pageTest("a message is marked as sent, acked, or failed with a retry", async ({ visit }) => {
  const server = await startServer();
  const { url } = server;
  const engine = server.registry.engineOf("ops");
  const publish = engine.publish.bind(engine);
  const held = Promise.withResolvers<void>();
  const ann = await visit(`${url}/?room=ops`);
  await ann.join("Ann");
  await ann.say("one");
  await ann.sees(".own:not(.pending) .mark", "✓");
  assertEquals(await ann.page.locator(".mark").getAttribute("aria-label"), "Delivered");

  // The engine thinks about the next one, and then it is gone together with its server.
  engine.publish = async (room, draft) => {
    await held.promise;
    return publish(room, draft);
  };
  await ann.say("two");
  await ann.sees(".own.pending .mark", "Sending …");
  await server[Symbol.asyncDispose]();
  await using _again = await startServer({ PORT: Number(new URL(url).port) });
  await ann.sees(".failed .mark", "Perhaps not delivered");
  await ann.page.click(".failed button");
  await ann.finds(`document.querySelectorAll(".own .mark[aria-label=Delivered]").length === 2`);
  assertEquals(await ann.words(), ["one", "two"]);
  assertEquals(await ann.value("document.activeElement.id"), "text");
  held.resolve();
  await ann.page.close();
}, CONNECTION_ERRORS);

pageTest("what came while nobody looked is below a divider", async (world) => {
  const ann = await world.visit("/?room=ops");
  await publish(world, "ops", range(1, 60).map((number) => `old ${number}`));
  await ann.sees(".words", "old 60");
  assertEquals(await ann.page.locator(".unread").count(), 0);
  const isAtEnd = `messages.scrollTop + messages.clientHeight > messages.scrollHeight - 5`;
  await ann.finds(isAtEnd);

  // She reads further up: the page stays where she reads, and tells.
  await ann.value("messages.scrollTop = 0");
  await ann.sees("#newest", "Newest messages");
  await publish(world, "ops", ["new 1", "new 2"]);
  await ann.sees(".words", "new 2");
  assertEquals(await ann.page.title(), "(2) #ops · Parley");
  assertEquals(await ann.value("messages.scrollTop"), 0);
  const afterDivider = `document.querySelector(".unread + .chat .words").textContent`;
  assertEquals(await ann.value(afterDivider), "new 1");
  await ann.page.click("#newest");
  await ann.finds(`${isAtEnd} && newest.hidden && document.title === "#ops · Parley"`);

  // What she has read stays above the divider the next time.
  await ann.value("messages.scrollTop = 0");
  await ann.sees("#newest", "Newest messages");
  await publish(world, "ops", ["new 3"]);
  await ann.sees(".words", "new 3");
  assertEquals(await ann.value(afterDivider), "new 3");
  assertEquals(await ann.page.locator(".unread").count(), 1);
  await ann.page.click("#newest");
  await ann.finds(`${isAtEnd} && newest.hidden`);

  // Another tab is in front.
  const setHidden = (isHidden: boolean) =>
    ann.value(
      `Object.defineProperty(document, "hidden", { value: ${isHidden}, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"))`,
    );
  await setHidden(true);
  await publish(world, "ops", ["new 4"]);
  await ann.finds(`document.title === "(1) #ops · Parley"`);
  await setHidden(false);
  await ann.finds(`document.title === "#ops · Parley"`);
  await ann.sees(".unread + .chat .words", "new 4");
  assertEquals(await ann.page.locator(".unread").count(), 1);
  // Who answers has read.
  await ann.join("Ann");
  await ann.say("I see");
  await ann.finds(`document.querySelector(".unread") === null`);
});

pageTest("who is at the end stays there, however much comes or is written", async (world) => {
  const ann = await world.visit("/?room=ops", { viewport: { width: 375, height: 667 } });
  await ann.join("Ann");
  const isAtEnd = `messages.scrollTop + messages.clientHeight > messages.scrollHeight - 5`;
  for (const number of range(1, 8)) {
    await publish(world, "ops", [`${number} is long. `.repeat(30)]);
    await ann.sees(".words", `${number} is long.`);
    await ann.finds(`${isAtEnd} && newest.hidden`);
  }
  // One head for all of a minute.
  await ann.say("a line\n".repeat(20));
  await ann.say("one more");
  await ann.sees(".own:last-child .mark", "✓");
  await ann.finds(isAtEnd);
  const heads = await ann.value<string[]>(
    `[...document.querySelectorAll(".chat:not(.follows) .sender")].map((one) => one.textContent)`,
  );
  assertLess(heads.length, 6);
  assertEquals([heads[0], heads.at(-1)], ["Robot", "Ann"]);
  // A long draft scrolls in its field.
  await ann.page.fill("#text", "a line\n".repeat(60));
  await ann.finds(isAtEnd);
  const bottom = "document.querySelector('footer').getBoundingClientRect().bottom";
  assertEquals(await ann.value(`[scrollY, Math.round(${bottom})]`), [0, 667]);
});

pageTest("the pages fit a phone", async ({ visit }) => {
  const phone = { viewport: { width: 320, height: 568 }, isMobile: true, hasTouch: true };
  const ann = await visit(`/?room=${"r".repeat(64)}`, phone);
  const fits = async () => {
    const outside = await ann.value<string[]>(
      `[...document.querySelectorAll("body *")].filter((one) => {
        const { left, right } = one.getBoundingClientRect();
        return right > innerWidth + 1 || left < -1;
      }).map((one) => one.outerHTML.slice(0, 80))`,
    );
    assertEquals(outside, []);
    assertEquals(await ann.value("document.documentElement.scrollWidth"), 320);
  };
  await fits();
  await ann.page.fill("#name", "N".repeat(64));
  await ann.page.tap("#join button");
  await ann.page.fill("#text", "word ".repeat(20) + "x".repeat(200));
  await ann.page.tap("#say button:last-child");
  await ann.sees(".own .mark", "✓");
  await ann.page.tap("#people");
  await ann.sees("#members li", "NNN");
  await fits();
  const { y, height } = (await ann.page.locator("#text").boundingBox())!;
  assert(y + height <= 568, "the message field is on the screen");
  await ann.page.goto(new URL("/dashboard", ann.page.url()).href);
  await ann.sees("#health", "All is well");
  await fits();
});

pageTest("everything can be done by keyboard alone", async (world) => {
  const ann = await world.visit("/?room=ops");
  const { keyboard } = ann.page;
  const focused = () => ann.value<string>("document.activeElement.id");
  await ann.finds(`document.activeElement.id === "name"`);
  await keyboard.type("Ann");
  await keyboard.press("Enter");
  await ann.finds(`document.activeElement.id === "text"`);
  await keyboard.type("first");
  await keyboard.press("Shift+Enter");
  await keyboard.type("second");
  await keyboard.press("Enter");
  await ann.sees(".own .mark", "✓");
  assertEquals([await ann.words(), await focused()], [["first\nsecond"], "text"]);

  // One step back is the name: it can be changed, or kept.
  await keyboard.press("Shift+Tab");
  assertEquals(await focused(), "rename");
  await keyboard.press("Enter");
  assertEquals(await focused(), "name");
  await keyboard.press("Escape");
  assertEquals(await focused(), "text");
  await keyboard.press("Shift+Tab");
  await keyboard.press("Enter");
  await keyboard.type("Anna");
  await keyboard.press("Enter");
  await ann.sees(".status", "Anna joined the chat.");

  // Further back are the messages, which the arrows scroll, the link and the members.
  await publish(world, "ops", range(1, 60).map(String));
  await ann.sees(".words", "60");
  const order: string[] = [];
  for (const _ of range(1, 4)) {
    await keyboard.press("Shift+Tab");
    order.push(await ann.value("document.activeElement.id || document.activeElement.localName"));
    const outline = await ann.value("getComputedStyle(document.activeElement).outlineStyle");
    assertEquals(outline, "solid");
    if (order.at(-1) === "messages") {
      await keyboard.press("Home");
      await ann.finds("messages.scrollTop === 0 && !newest.hidden");
    }
  }
  assertEquals(order, ["rename", "messages", "share", "people"]);
  await keyboard.press("Enter");
  await ann.sees("#members li", "Anna");
  await keyboard.press("Escape");
  await ann.finds(`!members.matches(":popover-open")`);
  assertEquals(await focused(), "people");
  const forward: string[] = [];
  for (const _ of range(1, 3)) {
    await keyboard.press("Tab");
    forward.push(await focused());
  }
  assertEquals(forward, ["share", "messages", "newest"]);
  await keyboard.press("Enter");
  await ann.finds(`newest.hidden && document.activeElement.id === "messages"`);
});

for (const colorScheme of ["light", "dark"] as const) {
  pageTest(`axe finds no violation on the ${colorScheme} pages`, async (world) => {
    // The policy forbids foreign scripts; only axe may break it, and only here.
    const options = { colorScheme, bypassCSP: true, viewport: { width: 800, height: 600 } };
    const audit = async ({ page }: Visitor) => {
      await page.addScriptTag({ content: axe });
      const found = await page.evaluate(
        "axe.run().then(({ violations, passes }) => [violations.map(({ id, nodes }) => " +
          "[id, ...nodes.map(({ html }) => html)]), passes.length])",
      ) as [string[][], number];
      assertEquals(found[0], []);
      assert(found[1] > 10, `axe looked at ${found[1]} rules`);
    };
    const ann = await world.visit("/?room=ops", options);
    await ann.sees("#join", "Your name");
    await audit(ann);
    await ann.join("Ann");
    await publish(world, "ops", ["See https://deno.com", ...range(1, 30).map(String)]);
    await ann.say("Hello");
    await ann.sees(".own .mark", "✓");
    await ann.page.click("#people");
    await ann.sees("#members li", "Ann");
    await ann.value("messages.scrollTop = 0");
    await ann.sees("#newest", "Newest messages");
    await publish(world, "ops", ["unread"]);
    await ann.sees(".unread", "New messages");
    await ann.value(`banner.textContent = "Reconnecting …"`);
    await audit(ann);
    await ann.value(`banner.className = "bad"`);
    await ann.page.click("#rename");
    await audit(ann);
    const paper = await ann.value<string>("getComputedStyle(document.body).backgroundColor");
    const isDark = Number(/\d+/.exec(paper)![0]) < 128;
    assertEquals(isDark, colorScheme === "dark");

    const dashboard = await world.visit("/dashboard", options);
    await dashboard.sees("#health", "All is well");
    await dashboard.finds(`document.querySelectorAll("canvas").length === 4`);
    await audit(dashboard);
  });
}

pageTest("the dashboard tells what the server does, and when it is gone", async ({ visit }) => {
  const server = await startServer();
  await using full = await startServer({ MAX_CONNECTIONS: 0 });
  const late = await visit(`${full.url}/dashboard`);
  const viewer = await visit(`${server.url}/dashboard`);
  const ann = await visit(`${server.url}/`);
  await viewer.sees("#health", "All is well");
  await ann.join("Ann");
  const figure = (label: string) =>
    `[...document.querySelectorAll("dt")].find((dt) => dt.textContent === "${label}")
      .nextSibling.textContent`;
  await viewer.finds(`${figure("Clients")}.startsWith("22 v1")`);
  await viewer.finds(`${figure("Rooms")} === "2members: 1"`);
  for (const number of range(1, 20)) await ann.say(`message ${number}`);
  await viewer.finds(`parseInt(${figure("Messages in")}) > 0`);
  await viewer.finds(`${figure("Engine")}.startsWith("memory")`);
  // The charts are drawn: some pixel has the colour of the first line.
  await viewer.finds(`(() => {
    const [canvas] = document.querySelectorAll("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) {
      if (data[i] === 11 && data[i + 1] === 95 && data[i + 2] === 165) return true;
    }
    return false;
  })()`);
  // What is not well is said, and the figure that tells it stands out.
  server.registry.counters.closes.tooSlow++;
  await viewer.sees("#health[data-state=warn]", "Slow clients were sent away");
  await viewer.sees("#figures [data-state=warn]", "Evicted1");
  assertEquals(await viewer.page.title(), "⚠ Parley dashboard");
  server.registry.isDraining = true;
  await viewer.sees("#health[data-state=bad]", "Nobody is let in: the server is draining");
  await server[Symbol.asyncDispose]();
  await viewer.sees("#health[data-state=bad]", "No connection to the server");
  await late.sees("#health[data-state=bad]", "The server is silent: full");
  await late.page.close();
}, CONNECTION_ERRORS);

pageTest("5,000 messages come without a stutter", async (world) => {
  const ann = await world.visit("/?room=ops");
  await ann.join("Ann");
  await ann.value(`{
    globalThis.frames = [];
    let last = performance.now();
    requestAnimationFrame(function next(now) {
      frames.push(now - last);
      last = now;
      requestAnimationFrame(next);
    });
    globalThis.keys = [];
    text.addEventListener("keydown", ({ timeStamp }) =>
      requestAnimationFrame(() => keys.push(performance.now() - timeStamp)));
  }`);
  const start = performance.now();
  const field = ann.page.locator("#text");
  const writing = field.pressSequentially("written in between", { delay: 40 });
  for (const hundred of range(0, 49)) {
    await publish(world, "ops", range(1, 100).map((one) => `message ${hundred * 100 + one}`));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await ann.sees(".words", "message 5000");
  const ms = Math.round(performance.now() - start);
  await writing;
  await ann.page.keyboard.press("Enter");
  await ann.finds(`document.querySelector(".own .mark[aria-label=Delivered]") !== null`);
  assertEquals((await ann.words()).slice(-2), ["message 5000", "written in between"]);
  assertEquals(await ann.value("messages.childElementCount"), 5_000);

  // And when all are there, the next ones and what she writes go as smoothly as in an empty room.
  const read = () => ann.value<Record<string, number[]>>("({ frames, keys })");
  const early = await read();
  await ann.value("{ frames = []; keys = []; }");
  for (const letter of "written when all are there") {
    await publish(world, "ops", [`with ${letter}`]);
    await field.press(letter === " " ? "Space" : letter);
  }
  await ann.page.keyboard.press("Enter");
  await ann.finds(`document.querySelectorAll(".own .mark[aria-label=Delivered]").length === 2`);
  const late = await read();
  const at = (share: number, all: number[]) =>
    Math.round(all.toSorted((a, b) => a - b)[Math.ceil(share * all.length) - 1]);
  const tell = ({ frames, keys }: typeof late) =>
    `${frames.length} frames of ${at(0.5, frames)} ms, a quarter over ${at(0.75, frames)} ms, ` +
    `the longest ${at(1, frames)} ms; a key waits ${at(1, keys)} ms at most`;
  console.log(`5,000 messages shown in ${ms} ms: ${tell(early)}`);
  console.log(`More when all are there: ${tell(late)}`);
  assertLess(at(1, early.keys), 1_000);
  assertLess(at(0.75, late.frames), 100);
});

pageTest("the share link leads into the room", async ({ visit }) => {
  const permissions = ["clipboard-read", "clipboard-write"];
  const ann = await visit("/?room=team.1&x=y#z", { permissions });
  await ann.page.click("#share");
  await ann.sees("#share", "Copied");
  await ann.sees("#said", "Link copied");
  const link = await ann.value<string>("navigator.clipboard.readText()");
  assertEquals(link, new URL("/?room=team.1", ann.page.url()).href);
  const bob = await visit(link);
  assertEquals(await bob.page.textContent("h1"), "#team.1");
  // The form leads to other rooms.
  await bob.page.fill("#name", "Bob");
  await bob.page.fill("#where", "other");
  await bob.page.click("#join button");
  await bob.page.waitForURL(/\?room=other$/);
  await bob.sees(".status", "Bob joined the chat.");
});

pageTest("who is refused learns why, and can go on", async ({ visit }) => {
  const AUTH_SECRET = "thirty-two characters of a secret";
  await using server = await startServer({ AUTH_SECRET });
  const sign = (claims: Record<string, unknown>) =>
    new SignJWT(claims).setProtectedHeader({ alg: "HS256" })
      .sign(new TextEncoder().encode(AUTH_SECRET));
  const url = `${server.url}/?room=ops`;
  const ann = await visit(url);
  await ann.sees("#banner.bad", /A token is needed.*#token=/);
  await ann.join("Ann");
  await ann.say("lost?");
  await ann.sees(".failed .mark", "Not sent: disconnected");
  // With a token behind the address the page begins again, and she is in under the token's name.
  await ann.page.goto(`${url}#token=${await sign({ sub: "Änne", speak: ["ops"] })}`);
  await ann.sees("#rename", "Änne");
  await ann.say("here I am");
  await ann.sees(".own .mark", "✓");
  const mute = await visit(`${url}#token=${await sign({ sub: "Bob", speak: [] })}`);
  await mute.page.click("#join button");
  await mute.say("may I?");
  await mute.sees(".failed .mark", "Not sent: Not allowed.");
  const viewer = await visit(`${server.url}/dashboard`);
  await viewer.sees("#health[data-state=bad]", /A token is needed.*#token=/);

  // A name that is none is asked for again.
  const cem = await visit("/?room=no room!");
  await cem.sees(".gap", "“no room!” cannot be a room's name. This is #lobby.");
  await cem.join("\u202eCem");
  await cem.finds(`document.getElementById("name").validationMessage === "Invalid name."`);
  await cem.join("Cem");
  await cem.sees(".status", "Cem joined the chat.");
  for (const { page } of [ann, mute, viewer]) await page.close();
}, CONNECTION_ERRORS);

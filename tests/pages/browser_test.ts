/** The pages, as people use them in a browser: the essentials, and every detail with `deno task pages`. */
import axe from "npm:axe-core@4.14.1/axe.min.js" with { type: "text" };
import { assert, assertEquals, assertLess, assertMatch } from "@std/assert";
import { connect } from "../../handlers/client/client.js";
import { createParley } from "../../handlers/parley.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { Proxy } from "../support/proxy.ts";
import { granted } from "../support/recorder.ts";
import { IS_FULL } from "../support/run.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";
import {
  CONNECTION_ERRORS,
  pageDetail,
  pageTest,
  type Visitor,
  type World,
} from "../support/visitors.ts";
import "./events.ts";
import "./mounted.ts";
import "./readme.ts";

/** Puts messages into a room, as fast as the server takes them. */
async function publish({ server }: World, room: string, texts: string[]): Promise<void> {
  for (const text of texts) {
    const draft = { sender: "Robot", message: JSON.stringify(text) };
    await server.registry.engineOf(room).publish(room, draft);
  }
}

pageTest(
  "an own message stands once, older ones come while there are, who writes on is shown",
  async ({ visit }) => {
    const ann = await visit("/");
    const told = await ann.value<unknown[]>(`(async () => {
    const { MessageList } = await import("./messages.js");
    const { Typing } = await import("./people.js");
    const box = document.createElement("div");
    const message = (seq) => ({ epoch: "e", seq, time: 0, sender: "Ann", message: "m" + seq });
    const asked = [];
    const readOlder = async ({ seq }) => (asked.push(seq), seq > 1 ? [message(seq - 1)] : []);
    const list = new MessageList(box, document.createElement("button"), "x", readOlder, new Set());
    // The ack may come before the message.
    list.settle(list.addOwn("Ann", "m3"), "e:3");
    list.addMessage(message(3));
    const frame = () => new Promise(requestAnimationFrame);
    await frame();
    for (let i = 0; i < 4; i++) {
      box.dispatchEvent(new Event("scroll"));
      await frame();
    }
    const words = [...box.querySelectorAll(".words")].map(({ textContent }) => textContent);
    const { setTimeout, clearTimeout } = globalThis;
    const timers = new Set();
    globalThis.setTimeout = () => (timers.add(timers.size + 1), timers.size);
    globalThis.clearTimeout = (timer) => timers.delete(timer);
    const typing = new Typing(document.createElement("p"));
    for (let i = 0; i < 2; i++) typing.set("Ann", true);
    Object.assign(globalThis, { setTimeout, clearTimeout });
    return [words, asked, typing.line.textContent, timers.size];
  })()`);
    assertEquals(told, [["m1", "m2", "m3"], [3, 2, 1], "Ann is writing …", 1]);
  },
);

pageTest("two visitors chat, and see who comes and goes", async ({ visit }) => {
  const ann = await visit("/?room=ops");
  const bob = await visit("/?room=ops");
  // A screen reader finds its way, and reads out what comes.
  await ann.page.getByRole("log", { name: "Messages" }).waitFor();
  await ann.page.getByRole("textbox", { name: "Your name" }).waitFor();
  await ann.join("Ann");
  await bob.sees(".status", /^Ann joined/);
  await bob.join("Bob");
  await ann.sees(".status", /Bob joined/);
  await ann.sees("#people", "2 here");
  await ann.page.click("#people");
  await ann.finds(`[...names.children].map((one) => one.textContent).join() === "Ann you,Bob"`);

  await ann.say("Hello Bob");
  await bob.sees(".chat .words", "Hello Bob");
  await bob.sees(".chat .sender", "Ann");
  await bob.say("Hello Ann,\nhow are you?");
  await ann.sees(".words", "how are you?");
  assertEquals(await ann.page.textContent("#typing"), "", "Bob writes no more");
  for (const one of [ann, bob]) {
    assertEquals(await one.words(), ["Hello Bob", "Hello Ann,\nhow are you?"]);
    assertEquals(await one.page.locator(".own").count(), 1);
    assertMatch((await one.page.locator("time").first().textContent())!, /^\d{1,2}:\d\d/);
  }
  assertEquals(await bob.page.locator(".own .words").textContent(), "Hello Ann,\nhow are you?");

  await bob.page.close();
  await ann.sees(".status", /^Bob left$/);
  await ann.sees("#people", "1 here");
  // Who comes later sees what was said.
  const cem = await visit("/?room=ops");
  await cem.sees(".words", "how are you?");
  assertEquals(await cem.words(), ["Hello Bob", "Hello Ann,\nhow are you?"]);
  // Who has joined is in again after a reload, and knows her own messages and what she was writing.
  await ann.page.fill("#text", "a draft");
  await ann.page.reload();
  await ann.finds(`text.value === "a draft" && document.activeElement.id === "text"`);
  await ann.sees(".own .mark", "✓");
  assertEquals(await ann.page.locator(".own .words").allTextContents(), ["Hello Bob"]);
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
    "\u202ehttps://evil.example/moc.elpmaxe.tsurt//:sptth\u202c \u2066!",
    "`const x = '<b>'` and ```\nlet many;\nlet lines;\n```",
    "👍🏽👨‍👩‍👧🇩🇪",
  ];
  const shown = [
    ...texts.slice(0, 4),
    "https://evil.example/moc.elpmaxe.tsurt//:sptth !",
    "const x = '<b>' and let many;\nlet lines;\n",
    texts[6],
  ];
  for (const text of texts) await ann.say(text);
  await bob.sees(".words.big", texts[6]);
  assertEquals(await bob.page.locator("code").allTextContents(), [
    "const x = '<b>'",
    "let many;\nlet lines;\n",
  ]);
  for (const one of [ann, bob]) {
    assertEquals(await one.words(), shown);
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
      "https://evil.example/moc.elpmaxe.tsurt//:sptth noopener noreferrer nofollow",
    ]);
    assertMatch(await one.page.title(), /^(\(\d\) )?#lobby · Parley$/);
  }
});

pageDetail("a server restart loses nothing, and the banner comes and goes", async ({ visit }) => {
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
  for (const one of [ann, bob]) await one.sees("#banner", "Connection lost, trying again.");
  // What is written now waits, in order.
  await ann.say("during 1");
  await ann.say("during 2");
  await bob.say("Bob too");
  await ann.sees(".own.pending .mark", "Waits for the connection");
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

pageDetail("a message is marked as sent, acked, or failed with a retry", async ({ visit }) => {
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

pageDetail("what came while nobody looked is below a divider", async (world) => {
  const ann = await world.visit("/?room=ops");
  await ann.sees("#people", "0 here");
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
  await ann.page.focus("#name");
  await ann.page.click("#newest");
  await ann.finds(`${isAtEnd} && newest.hidden && document.title === "#ops · Parley"`);
  assertEquals(await ann.value("document.activeElement.id"), "name", "a phone keeps its keyboard");

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

pageDetail("who is at the end stays there, however much comes or is written", async (world) => {
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

pageDetail("the pages fit a phone", async ({ visit }) => {
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
  await ann.page.tap("#say > button");
  await ann.sees(".own .mark", "✓");
  await ann.page.tap("#people");
  await ann.sees("#members li", "NNN");
  await fits();
  const { y, width, height } = (await ann.page.locator("#text").boundingBox())!;
  assert(y + height <= 568, "the message field is on the screen");
  assert(width > 320 * 0.6, `the message field has ${width} of 320 px`);
  await ann.page.goto(new URL("/dashboard", ann.page.url()).href);
  await ann.sees("#health", "All is well");
  await fits();
});

pageDetail("everything can be done by keyboard alone", async (world) => {
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
  await ann.sees(".status", "Ann is now Anna");

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

for (const [colorScheme, width] of [["light", 1_280], ["dark", 390]] as const) {
  // The dark ones at full size.
  (colorScheme === "light" ? pageTest : pageDetail)(
    `axe finds no violation on the ${colorScheme} pages, ${width} px wide`,
    async (world) => {
      // The policy forbids foreign scripts; only axe may break it, and only here.
      const options = { colorScheme, bypassCSP: true, viewport: { width, height: 700 } };
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
      if (IS_FULL) await audit(ann);
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
      await ann.page.keyboard.press("Escape");
      await ann.page.click("#room");
      await ann.sees("#list a", "#ops");
      await ann.value(`banner.className = "bad"`);
      await ann.page.click("#rename");
      if (IS_FULL) await audit(ann);
      const paper = await ann.value<string>("getComputedStyle(document.body).backgroundColor");
      const isDark = Number(/\d+/.exec(paper)![0]) < 128;
      assertEquals(isDark, colorScheme === "dark");

      const dashboard = await world.visit("/dashboard", options);
      await dashboard.sees("#health", "All is well");
      await dashboard.finds(`document.querySelectorAll("canvas").length === 6`);
      await audit(dashboard);
    },
  );
}

pageDetail("the dashboard tells what the server does, and when it is gone", async ({ visit }) => {
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
  // Whoever watches is in none of the figures.
  await viewer.finds(`${figure("Clients")}.startsWith("1of 10K; 1 v1")`);
  await viewer.finds(`${figure("Rooms")} === "11 joined"`);
  await viewer.finds(`/^\\d+\\.\\d MBof the process$/.test(${figure("Memory")})`);
  await viewer.finds(`/^\\d+ (s|min)Parley \\d+\\.\\d/.test(${figure("Up")})`);
  await viewer.sees("#nodes tr", / · 01 of 10K\d+\/s\d+ %\d+ ms\d+\/s\d+\.\d MB–\d+ \w+0\./);
  await viewer.sees("#rooms tr", /^#lobby11\d+$/);
  assertEquals(await viewer.page.getAttribute("#rooms a", "href"), "./?room=lobby");
  for (const number of range(1, 20)) await ann.say(`message ${number}`);
  await viewer.finds(`parseInt(${figure("Messages in")}) > 0`);
  await viewer.finds(`${figure("Engine")}.startsWith("memory")`);
  // The charts are drawn, once the page is in front: some pixel has the colour of a line.
  await viewer.page.bringToFront();
  await viewer.finds(`(() => {
    const [canvas] = document.querySelectorAll("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) {
      // Axes and grid are grey; a line has a colour.
      const rgb = data.slice(i, i + 3);
      if (data[i + 3] > 0 && Math.max(...rgb) - Math.min(...rgb) > 60) return true;
    }
    return false;
  })()`);
  // One can point at a second.
  await viewer.page.hover(".u-over >> nth=0");
  await viewer.page.selectOption("#range", "3600");
  await viewer.finds(`[...document.querySelectorAll(".u-legend .u-value")].some(({ textContent }) =>
    /^\\d\\d:\\d\\d:\\d\\d$/.test(textContent))`);
  // What is not well is said, and the figure that tells it stands out and stays.
  await viewer.finds(`${figure("Refused")} === "0errors sent in a minute"`);
  for (const _ of range(1, 400)) server.registry.counters.refuse("bad_json");
  await viewer.sees("#health[data-state=warn]", "Errors were sent");
  await viewer.sees("#figures [data-state=warn]", "Refused400");
  await viewer.sees("figure:not(.empty)", "Incidents a second");
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

pageDetail(
  "charts have gaps where nothing was measured, and no spike flattens the rest",
  async ({ visit }) => {
    const viewer = await visit("/dashboard");
    const told = await viewer.value<unknown[]>(`(async () => {
    const { Chart } = await import("./charts.js");
    const chart = new Chart(document.body, "x", [["a", ({ a }) => a], ["b", ({ b }) => b]]);
    const empty = (chart.draw([], 300), chart.figure.className);
    const seconds = [];
    const push = (at, stats) => seconds.push({ at, stats });
    for (let i = 0; i < 200; i++) push(1_000 + i, { a: i === 100 ? 9_000 : 10, b: i % 50 ? undefined : 1 });
    push(1_319);
    push(1_320, { a: 10 });
    const frame = () => new Promise(requestAnimationFrame);
    const ranges = () => [chart.plot.scales.x.min, chart.plot.scales.x.max, chart.plot.scales.y.max];
    chart.draw(seconds, 3_600);
    await frame();
    const [, a, b] = chart.plot.data;
    const told = [empty, chart.figure.className, chart.peak.textContent, a.slice(-3), b.slice(0, 2), ranges()];
    chart.draw(seconds, 100);
    await frame();
    return [...told, ranges()];
  })()`);
    assertEquals(told, [
      ...["empty", "", " · peak 9K", [10, null, 10], [1, null]],
      ...[[1_000, 1_320, 22], [1_220, 1_320, 11]],
    ]);
  },
);

pageDetail("of thousands of messages the last 5,000 stay", async ({ visit }) => {
  const ann = await visit("/?room=ops");
  const texts = await ann.value<string[]>(`(async () => {
    const { MessageList } = await import("./messages.js");
    const list = new MessageList(messages, newest, "x", undefined, new Set());
    const next = { epoch: "e", sender: "Ann" };
    for (let seq = 1; seq <= 5_100; seq++) {
      list.addMessage({ ...next, seq, time: Date.now(), message: "m" + seq });
    }
    while (messages.lastElementChild?.textContent.endsWith("m5100") !== true) {
      await new Promise(requestAnimationFrame);
    }
    return [...document.querySelectorAll(".words")].map(({ textContent }) => textContent);
  })()`);
  assertEquals(texts, range(101, 5_100).map((seq) => `m${seq}`));
});

pageDetail(
  "older messages come when one scrolls up, and what one looks at stays",
  async (world) => {
    // The server keeps 100.
    await publish(world, "ops", range(1, 120).map((number) => `old ${number}`));
    const ann = await world.visit("/?room=ops");
    await ann.sees(".words", "old 120");
    assertEquals(await ann.page.locator(".words").count(), 50);
    const place = `[...document.querySelectorAll(".words")]
    .find(({ textContent }) => textContent === "old 71").getBoundingClientRect().top`;
    await ann.finds(`messages.scrollTop > 500`);
    await ann.value("messages.scrollTop = 0");
    const before = await ann.value<number>(place);
    await ann.finds(`document.querySelectorAll(".words").length === 100`);
    assertLess(Math.abs(await ann.value<number>(place) - before), 60);
    await ann.value("messages.scrollTop = 0");
    assertEquals(await ann.words(), range(21, 120).map((number) => `old ${number}`));
  },
);

pageDetail("one sees who is writing, until the message comes or no more", async ({ visit }) => {
  const ann = await visit("/?room=ops");
  const bob = await visit("/?room=ops");
  await ann.join("Ann");
  await bob.join("Bob");
  await bob.page.locator("#text").pressSequentially("Hel");
  await ann.sees("#typing", /^Bob is writing …$/);
  assertEquals(await bob.page.textContent("#typing"), "");
  await bob.page.keyboard.press("Enter");
  await ann.sees(".words", "Hel");
  assertEquals(await ann.page.textContent("#typing"), "");
});

pageDetail(
  "a name has the colour that its bearer has chosen, while she is there",
  async (world) => {
    const ann = await world.visit("/?room=ops");
    const bob = await world.visit("/?room=ops");
    const hue = (element: string) => `getComputedStyle(${element}).getPropertyValue("--hue")`;
    await ann.page.fill("#hue", "200");
    await ann.join("Ann");
    await bob.join("Bob");
    await ann.say("blue");
    await bob.sees(".words", "blue");
    await bob.finds(`${hue(`document.querySelector(".sender")`)} === "200"`);
    await ann.page.click("#rename");
    await ann.page.fill("#hue", "30");
    await ann.join("Anna");
    await ann.say("red");
    await bob.finds(
      `[...document.querySelectorAll(".sender")].map((one) => ${hue("one")}).join() === "200,30"`,
    );
    await bob.page.click("#people");
    await bob.finds(`[...names.children].map((one) => ${hue("one")})[0] === "30"`);
    // The colour is a key that goes with its tab.
    const { registry } = world.server;
    const keys = async () => (await granted(registry.engineOf("ops").state("ops"))).entries.length;
    assertEquals(await keys(), 2);
    await ann.page.close();
    await bob.sees("#people", "1 here");
    assertEquals(await keys(), 1);
  },
);

pageDetail("the share link leads into the room", async ({ visit }) => {
  const permissions = ["clipboard-read", "clipboard-write"];
  const ann = await visit("/?room=team.1&x=y#z", { permissions });
  await ann.page.click("#share");
  await ann.sees("#share", "Copied");
  await ann.sees("#said", "Link copied");
  const link = await ann.value<string>("navigator.clipboard.readText()");
  assertEquals(link, new URL("/?room=team.1", ann.page.url()).href);
  const bob = await visit(link);
  assertEquals(await bob.page.textContent("h1"), "#team.1");
});

pageDetail("people find other rooms, and go there under their name", async ({ visit, server }) => {
  const url = `${server.ws}/chat/`;
  const others = ["b", "a.1"].map((room) => connect(url + room, { name: "Eve" }));
  await Promise.all(others.map((client) => client.members()));
  const ann = await visit("/");
  await ann.join("Ann");
  await ann.page.click("#room");
  await ann.sees("#list a", "#a.11 here");
  assertEquals(await ann.page.locator("#list a").count(), 3);
  await ann.page.click("#list a >> text=#b");
  await ann.page.waitForURL(/\?room=b$/);
  await ann.sees(".status", /Ann joined/);
  await ann.page.click("#room");
  await ann.page.fill("#where", "..");
  await ann.page.click("#go button");
  assertEquals(await ann.value("where.validity.patternMismatch"), true);
  await ann.page.fill("#where", "c:1");
  await ann.page.keyboard.press("Enter");
  await ann.page.waitForURL(/\?room=c%3A1$/);
  await ann.sees("#people", "1 here");
  // Cancel leaves the name as it is.
  await ann.page.click("#rename");
  await ann.page.fill("#name", "Somebody");
  await ann.page.click("#cancel");
  await ann.sees("#rename", /^Ann$/);
  for (const bad of ["..", ".", "no room!"]) {
    const lost = await visit(`/?room=${bad}`);
    await lost.sees(".gap", `“${bad}” cannot be a room's name. This is #lobby.`);
    await lost.sees("#people", "0 here");
  }
  for (const client of others) client.close();
});

pageDetail(
  "a crowd that comes and goes is one line, and a list to search",
  async ({ visit, server }) => {
    const ann = await visit("/?room=ops");
    await ann.join("Ann");
    await ann.say("Hello?");
    await ann.sees(".own .mark", "✓");
    const names = [...range(1, 25).map((n) => `user ${n}`), "Ann"];
    const crowd = names.map((name) => connect(`${server.ws}/chat/ops`, { name }));
    await ann.sees("#people", "27 here");
    await ann.sees(".status", /^user 1 and 25 others joined$/);
    crowd[0].join("Kay");
    crowd[1].close();
    await ann.sees(".status", /^user \d+ and 24 others joined$/);
    await ann.page.click("#people");
    await ann.sees("#names li", "user 25");
    const listed = await ann.page.locator("#names li").allTextContents();
    assertEquals(listed, ["Ann you", "Ann", "Kay", ...range(3, 25).map((n) => `user ${n}`)]);
    const colors = await ann.value<string[]>(
      `[...names.children].slice(0, 2).map((one) => getComputedStyle(one).color)`,
    );
    assert(colors[0] !== colors[1], "two Anns have two colours");
    await ann.page.fill("#search", "USER 2");
    await ann.finds(`[...names.children].filter((one) => !one.hidden).length === 6`);
    for (const client of crowd) client.close();
    await ann.sees("#people", "1 here");
    assertEquals(await ann.page.locator(".status").count(), 2);
    // A change of name and a return stand alone.
    const kay = connect(`${server.ws}/chat/ops`, { name: "Kay" });
    await kay.send("I am Kay");
    kay.join("Kay 2");
    await ann.sees(".status", /^Kay is now Kay 2$/);
    kay.close();
  },
);

pageDetail("days and groups: what the line above says is not said again", async ({ visit }) => {
  const ann = await visit("/");
  const shown = await ann.value<string[]>(`(async () => {
    const { MessageList } = await import("./messages.js");
    const box = document.createElement("div");
    const list = new MessageList(box, document.createElement("button"), "x", undefined, new Set(["e:6"]));
    const noon = (days) => new Date().setHours(12, 0, 0, 0) - days * 86_400_000;
    const times = [noon(30), noon(1), noon(1) + 60_000, noon(0), noon(0) + 1, noon(0) + 2, noon(0) + 400_000];
    times.forEach((time, i) => list.addMessage({ epoch: "e", seq: i + 1, time, sender: "Ann", message: i }));
    while (box.children.length < 10) await new Promise(requestAnimationFrame);
    return [...box.children].map(({ className, textContent }) => className === "day" ? textContent : className);
  })()`);
  assertMatch(shown[0], /\d{4}/);
  assertEquals(shown.slice(1), [
    ...["chat", "Yesterday", "chat", "chat follows", "Today", "chat", "chat follows"],
    ...["chat own", "chat"],
  ]);
  // A few messages stand at the bottom, by the composer.
  await ann.join("Ann");
  await ann.say("low");
  await ann.sees(".own .mark", "✓");
  assert(
    await ann.value(`document.querySelector(".own").getBoundingClientRect().bottom >
    messages.getBoundingClientRect().bottom - 40`),
  );
});

pageDetail(
  "on a dead network people learn that what they write waits",
  async ({ visit, server }) => {
    await using proxy = new Proxy(Number(new URL(server.url).port));
    const ann = await visit(`http://127.0.0.1:${proxy.port}/?room=ops`);
    await ann.finds(`getComputedStyle(messages, "::before").content === '"No messages yet."'`);
    await ann.join("Ann");
    await ann.say("before");
    await ann.sees(".own .mark", "✓");
    proxy.swallow();
    await ann.say("into the void");
    await ann.sees(".own.pending .mark", "Sending …");
    await ann.value(`dispatchEvent(new Event("offline"))`);
    await ann.sees("#banner", "Connection lost, trying again.");
    await ann.sees(".own.pending .mark", "Waits for the connection");
    proxy.heal();
    proxy.cutAll();
    await ann.value(`dispatchEvent(new Event("online"))`);
    await ann.finds(`document.querySelectorAll(".own:not(.pending)").length === 2`);
    await ann.finds(`banner.textContent === ""`);
    await ann.page.close();
  },
  CONNECTION_ERRORS,
);

pageDetail(
  "what comes while the page is hidden is notified, if one has asked for it",
  async (world) => {
    const ann = await world.visit("/?room=ops", { permissions: ["notifications"] });
    await ann.value(`{
    globalThis.notes = [];
    globalThis.Notification = class {
      static requestPermission = () => Promise.resolve("granted");
      constructor(title, { body }) { notes.push([title, body].join(": ")); }
    };
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
  }`);
    await publish(world, "ops", ["one"]);
    await ann.sees(".words", "one");
    await ann.page.click("#room");
    await ann.page.check("#notify");
    await publish(world, "ops", ["two"]);
    await ann.finds(`notes.join() === "Robot in #ops: two"`);
  },
);

pageDetail("who is refused learns why, and can go on", async ({ visit }) => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const url = `${server.url}/?room=ops`;
  const ann = await visit(url);
  await ann.sees("#banner.bad", /needs a token.*#token=/);
  // Nothing is shown that is not known, and nothing to write into.
  await ann.finds(`people.hidden && join.hidden && say.hidden`);
  assertEquals(await ann.value(`getComputedStyle(messages, "::before").content`), '""');
  const expired = await visit(`${url}#token=${await sign({ sub: "x", exp: 1 })}`);
  await expired.sees("#banner.bad", /has expired. Ask for a new link\.$/);
  // With a token behind the address the page begins again, under the token's name.
  await ann.page.goto(`${url}#token=${await sign({ sub: "Änne", speak: ["ops"] })}`);
  await ann.page.click("#enter");
  await ann.sees("#rename:disabled", "Änne");
  await ann.say("here I am");
  await ann.sees(".own .mark", "✓");
  await ann.page.click("#room");
  await ann.sees("#list a", "#ops");
  // Who may not speak is told so before there is anything to write into.
  const mute = await visit(`${url}#token=${await sign({ sub: "Bob", speak: ["user:{sub}"] })}`);
  await mute.sees(".words", "here I am");
  await mute.sees("#mute", "You may read this room, not write in it.");
  assertEquals(await mute.page.locator("form:visible").count(), 0);
  // Also where only the server knows it: at the first refusal.
  const authorize = () => ({ user: "Eve", speak: [] });
  await using parley = createParley({ authorize, limits: { drainSeconds: 0 } });
  const serving = { port: 0, hostname: "127.0.0.1", onListen() {} };
  await using own = Deno.serve(serving, parley.fetch);
  const eve = await visit(`http://127.0.0.1:${own.addr.port}/`);
  await eve.page.fill("#name", "Eve");
  await eve.page.click("#enter");
  await eve.sees("#mute", "You may read this room, not write in it.");
  const viewer = await visit(`${server.url}/dashboard`);
  await viewer.sees("#health[data-state=bad]", /A token is needed.*#token=/);
  const admin = `#token=${await sign({ sub: "x", admin: true })}`;
  await viewer.page.goto(`${server.url}/dashboard${admin}`);
  await viewer.sees("#rooms a", "#ops");
  assertEquals(await viewer.page.getAttribute("#rooms a", "href"), `./?room=ops${admin}`);
  for (const [link, text] of [["metrics", "parley_connections"], ["chat", "Your name"]]) {
    await viewer.page.goto(`${server.url}/dashboard${admin}`);
    await viewer.page.click(`#${link}`);
    await viewer.sees("body", text);
  }
  assertEquals(await viewer.value("location.hash"), admin);
  const stats = await visit("/?room=_stats");
  await stats.sees("#mute", "You may read this room");

  // A name that is none is asked for again.
  const cem = await visit("/");
  await cem.join("\u202eCem");
  await cem.finds(`document.getElementById("name").validationMessage === "Invalid name."`);
  await cem.join("C\u200bem");
  await cem.sees(".status", "C\\x200bem joined");
  for (const { page } of [ann, mute, eve, viewer, expired]) await page.close();
}, CONNECTION_ERRORS);

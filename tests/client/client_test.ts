import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { type Options, ParleyError } from "../../handlers/client/client.js";
import { Inbox } from "../support/inbox.ts";
import {
  ack,
  assertCode,
  chat,
  error,
  heardChat,
  ids,
  joined,
  play,
  said,
  welcome,
} from "./stage.ts";
import { FakeClock, FakeServer, type Json } from "./fake_server.ts";

// Connecting.

play("connect() finds the room in the URL, in the options, or takes the lobby", async (stage) => {
  const { server } = stage;
  const http = server.url.replace("ws", "http");
  const cases: [string, Options, string][] = [
    [server.url, {}, "/chat/lobby"],
    [`${http}/`, { room: "a.b:c" }, "/chat/a.b:c"],
    [`${server.url}/chat`, {}, "/chat/lobby"],
    [`${server.url}/chat/`, { room: "x" }, "/chat/x"],
    [`${server.url}/chat/ops#part`, {}, "/chat/ops"],
    [`${server.url}/chat/ops?k=v`, { room: "dev", history: 3 }, "/chat/dev?k=v&history=3"],
    [`${http}/behind/proxy/`, {}, "/behind/proxy/chat/lobby"],
    [`${http}/behind/proxy`, {}, "/behind/proxy/chat/lobby"],
    [`${http}/behind/chat/ops`, {}, "/behind/chat/ops"],
    [`${http}/chat/a%3Ab%2Ec`, {}, "/chat/a:b.c"],
  ];
  for (const [url, options, expected] of cases) {
    const { client } = stage.connect(options, url);
    const peer = await server.accept();
    assertEquals(peer.url.pathname + peer.url.search, expected);
    assertEquals(peer.protocols, "parley.v1");
    client.close();
  }
});

play("connect() throws for what is no address of a server", async (stage) => {
  assertThrows(() => stage.connect({}, "ftp://host/"), TypeError, "Cannot connect to ftp://host/");
  assertThrows(() => stage.connect({}, "http://"), TypeError);
  assertThrows(() => stage.connect({ room: "a b" }), ParleyError, "Cannot use room a b");
  assertThrows(() => stage.connect({ room: "a".repeat(65) }), ParleyError);
  for (const room of ["%20", "%ZZ", "a%2Fb"]) {
    assertThrows(() => stage.connect({}, `${stage.server.url}/chat/${room}`), ParleyError);
  }
  const { client } = stage.connect();
  assertThrows(() => client.listen("a/b"), ParleyError);
  assertThrows(() => client.join("Ann", ""), ParleyError);
  await Promise.resolve();
});

play("a token goes as a subprotocol and is asked for at every connect", async (stage) => {
  let asked = 0;
  const { client, heard, peer } = await stage.ann({ token: () => Promise.resolve(`t.${++asked}`) });
  assertEquals(peer.protocols, "parley.v1, token.t.1");
  await peer.cut();
  const again = await stage.server.accept();
  assertEquals(again.protocols, "parley.v1, token.t.2");
  await again.next();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  assertEquals(await heard.next(), ["connection", "open"]);
  await client.refreshToken();
  assertEquals(await again.next(), { type: "token", token: "t.3" });
});

play("a token function that fails is reported and asked again", async (stage) => {
  using clock = new FakeClock();
  let asked = 0;
  const { heard } = stage.connect({
    token: () => ++asked === 1 ? Promise.reject(new Error("no login")) : "t",
  });
  assertEquals(await heard.next(), ["error", {
    code: "bad_token",
    message: "Cannot get a token: Error: no login",
    room: undefined,
  }]);
  assertEquals(await clock.timeouts.next(), 500);
  clock.advance(500);
  assertEquals((await stage.server.accept()).protocols, "parley.v1, token.t");
});

play("a token that cannot stand in a header ends the client", async (stage) => {
  const { heard, client } = stage.connect({ token: "a b" });
  const [kind, value] = await heard.next();
  assertEquals(kind, "error");
  assertMatch((value as Error).message, /^Cannot connect to ws:.*\/chat\/lobby: /);
  assertEquals(await heard.next(), ["connection", "closed"]);
  assertEquals(client.connection, "closed");
});

play("a server that does not speak parley.v1 ends the client", async (stage) => {
  stage.server.protocol = "";
  const { heard } = stage.connect();
  const [, value] = await heard.next();
  assertEquals((value as ParleyError).code, "bad_protocol");
  assertEquals(await heard.next(), ["connection", "closed"]);
});

play(
  "a name joins the room with a secret of the client's own; without one it listens",
  async (stage) => {
    const { join, client } = await stage.ann();
    const { session, ...rest } = join;
    assertEquals(rest, { type: "join", room: "lobby", name: "Ann" });
    assertMatch(session as string, /^.{16,64}$/);
    const { join: other } = await stage.ann();
    assert(other.session !== session);
    client.close();

    const { client: quiet } = stage.connect();
    const peer = await stage.server.accept();
    quiet.join("Eve");
    const { session: third, ...first } = await peer.next();
    assertEquals(first, { type: "join", room: "lobby", name: "Eve" });
    assertEquals(typeof third, "string");
    quiet.join("Eva");
    assertEquals(await peer.next(), {
      type: "join",
      room: "lobby",
      name: "Eva",
      session: third as string,
    });
  },
);

// Hearing.

play(
  "objects that share a frame are heard in order; unknown and broken ones are skipped",
  async (stage) => {
    const { heard, peer } = await stage.ann();
    const status = {
      type: "status",
      room: "lobby",
      event: "join",
      name: "Bob",
      members: 2,
      message: "Bob joined the chat.",
    };
    peer.socket.send(new Uint8Array([1]));
    peer.say(chat(6, { extra: 1 }), "{", "null", "5", { type: "news" }, status, chat(7));
    assertEquals(await heard.next(), heardChat(6));
    assertEquals(await heard.next(), ["status", status]);
    assertEquals(await heard.next(), heardChat(7));
  },
);

play("a message is never delivered twice or out of order", async (stage) => {
  const { heard, peer } = await stage.ann();
  peer.say(chat(6), chat(6), chat(5), chat(7));
  peer.say(chat(1), chat(7), chat(8));
  for (const seq of [6, 7, 8]) assertEquals(await heard.next(), heardChat(seq));
  peer.say(chat(7), { type: "bye", retry: 0 });
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
});

play("a hole in the numbers brings the client back from before it", async (stage) => {
  const { heard, peer } = await stage.ann();
  peer.say(chat(6), chat(8), welcome({ seq: 6 }), chat(7), chat(8));
  assertEquals(await heard.next(), heardChat(6));
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.server.accept();
  assertEquals(again.url.searchParams.get("after"), "e:6");
  await again.next();
  again.say(welcome({ seq: 6, recovered: true }), chat(7), chat(8));
  assertEquals(await heard.next(), ["connection", "open"]);
  assertEquals(await heard.next(), ["welcome", 6]);
  assertEquals(await heard.next(), heardChat(7));
  assertEquals(await heard.next(), heardChat(8));
});

play("messages of a room without a welcome on this connection are not delivered", async (stage) => {
  const { heard, peer } = await stage.ann();
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.server.accept();
  again.say(chat(6, { message: "of another epoch" }), welcome({ recovered: true }), chat(6));
  assertEquals(await heard.next(), ["connection", "open"]);
  assertEquals(await heard.next(), ["welcome", 5]);
  assertEquals(await heard.next(), heardChat(6));
});

play("what was about to be said on a lost connection is said once on the next", async (stage) => {
  const { client, peer } = await stage.ann({
    onMessage: () => {
      client.members();
      client.send("answer");
    },
  });
  peer.say(chat(6), chat(8));
  const again = await stage.server.accept();
  const asked = await again.some(2);
  assertEquals(asked.map(({ type }) => type), ["join", "members"]);
  again.say(welcome({ seq: 6, recovered: true }));
  assertEquals((await again.next()).message, "answer");
});

play("a mistake in a callback does not cost the next message", async (stage) => {
  const errors = new Inbox<unknown>("an error event");
  const listen = (event: ErrorEvent) => {
    event.preventDefault();
    errors.push(event.error.message);
  };
  globalThis.addEventListener("error", listen);
  const seen = new Inbox<number>("a message");
  const { peer } = await stage.ann({
    onMessage: ({ seq }) => {
      if (seq === 6) throw new Error("page's mistake");
      seen.push(seq);
    },
  });
  peer.say(chat(6), chat(7));
  assertEquals(await seen.next(), 7);
  assertEquals(await errors.next(), "page's mistake");
  globalThis.removeEventListener("error", listen);
});

// Coming back.

play(
  "the client resumes all its rooms by their cursors, under its names and one session",
  async (stage) => {
    const { client, heard, peer, join } = await stage.ann({ history: 9 });
    assertEquals(peer.url.search, "?history=9");
    client.listen("ops");
    client.join("Ann B", "dev");
    client.listen("new");
    client.listen("ops");
    const { session } = join;
    assertEquals(await peer.some(3), [
      { type: "listen", room: "ops" },
      { type: "join", room: "dev", name: "Ann B", session },
      { type: "listen", room: "new" },
    ]);
    peer.say(welcome({ room: "ops", epoch: "o", seq: 0 }), welcome({ room: "dev", epoch: "d" }));
    peer.say(chat(1, { room: "ops" }), chat(6), chat(2, { room: "ops" }));
    await peer.cut();
    const again = await stage.server.accept();
    assertEquals(again.url.search, "?after=e%3A6");
    const [home, ...others] = await again.some(4);
    assertEquals(home, { type: "join", room: "lobby", name: "Ann", session, after: "e:6" });
    assertEquals(others, [
      { type: "listen", room: "ops", after: "o:2" },
      { type: "join", room: "dev", name: "Ann B", session, after: "d:5" },
      { type: "listen", room: "new" },
    ]);
    assertEquals(heard.size > 0, true);
  },
);

play("a refused name is not repeated: the one before it is", async (stage) => {
  const { client, heard, peer } = await stage.ann();
  peer.say(joined("Ann"));
  assertEquals((await heard.next())[0], "status");
  client.join("bad\n");
  client.join("Eva");
  client.join("taken");
  await peer.some(3);
  peer.say(
    error("bad_name", { room: "lobby" }),
    joined("Eva"),
    error("forbidden", { room: "lobby" }),
  );
  for (const kind of ["error", "status", "error"]) assertEquals((await heard.next())[0], kind);
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.server.accept();
  assertEquals((await again.next()).name, "Eva");
  client.send("still here");
  again.say(welcome({ recovered: true }));
  assertEquals((await again.next()).message, "still here");

  // What has no answer yet at the cut is asked again, behind the name that was good.
  client.join("Maybe");
  assertEquals((await again.next()).name, "Maybe");
  await again.cut();
  const third = await stage.server.accept();
  assertEquals((await third.some(2)).map(({ name }) => name), ["Eva", "Maybe"]);
  // Of names taken while there is no connection the last one counts.
  await third.cut();
  client.join("one");
  client.join("two");
  const fourth = await stage.server.accept();
  assertEquals((await fourth.some(2)).map(({ name }) => name), ["Eva", "two"]);
});

play("onGap tells what is missing before any later message", async (stage) => {
  const { heard, peer } = await stage.ann();
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.back(heard, { seq: 9, recovered: false });
  again.say(chat(10));
  const gap = { room: "lobby", from: { epoch: "e", seq: 5 }, to: { epoch: "e", seq: 9 } };
  assertEquals(await heard.next(), ["gap", gap]);
  assertEquals(await heard.next(), ["welcome", 9]);
  assertEquals(await heard.next(), heardChat(10));
});

play(
  "onGap tells of another epoch, of one that begins anew, of a jump, in mid-connection too",
  async (stage) => {
    const { heard, peer } = await stage.ann();
    const at = (epoch: string, seq: number) => ({ epoch, seq });
    const cases: [Json, ReturnType<typeof at>, ReturnType<typeof at>][] = [
      [{ epoch: "f", seq: 5 }, at("e", 5), at("f", 5)],
      [{ epoch: "f", seq: 5, recovered: false }, at("f", 5), at("f", 5)],
      [{ epoch: "f", seq: 2, recovered: false }, at("f", 5), at("f", 2)],
      [{ epoch: "f", seq: 4, recovered: true }, at("f", 2), at("f", 4)],
      [{ epoch: "e", seq: 7, recovered: false }, at("f", 4), at("e", 7)],
    ];
    for (const [more, from, to] of cases) {
      peer.say(welcome(more));
      assertEquals(await heard.next(), ["gap", { room: "lobby", from, to }]);
      assertEquals(await heard.next(), ["welcome", more.seq]);
    }
    peer.say(chat(8));
    assertEquals(await heard.next(), heardChat(8));
  },
);

play("a resume that starts earlier repeats nothing and is no gap", async (stage) => {
  const { heard, peer } = await stage.ann();
  peer.say(chat(6));
  assertEquals(await heard.next(), heardChat(6));
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.back(heard, { seq: 4, recovered: true });
  again.say(chat(5), chat(6), chat(7));
  assertEquals(await heard.next(), ["welcome", 4]);
  assertEquals(await heard.next(), heardChat(7));
});

play(
  "the client comes back at once, then with backoff and full jitter, at most 10 s",
  async (stage) => {
    using clock = new FakeClock();
    const { heard, peer, client } = await stage.ann();
    peer.say(chat(6));
    await heard.next();
    stage.server.door = () => new Response(null, { status: 500 });
    await peer.cut();
    const delays = [];
    for (let i = 0; i < 8; i++) {
      clock.random = i === 3 ? 0.5 : 1;
      delays.push(await clock.timeouts.next());
      assertEquals(client.connection, "reconnecting");
      if (i === 7) stage.server.door = () => undefined;
      clock.advance(delays[i]);
    }
    assertEquals(delays, [0, 500, 1_000, 1_000, 4_000, 8_000, 10_000, 10_000]);
    const again = await stage.server.accept();
    await again.next();
    again.say(welcome({ seq: 6, recovered: true }), chat(7));
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    assertEquals(await heard.next(), ["connection", "open"]);
    assertEquals(await heard.next(), ["welcome", 6]);
    assertEquals(await heard.next(), heardChat(7));
    await again.cut();
    assertEquals(await clock.timeouts.next(), 0);
  },
);

play(
  "connections that bring nothing are not opened in a loop; one that lasted is",
  async (stage) => {
    using clock = new FakeClock();
    let { heard, peer } = await stage.ann();
    for (const ms of [0, 500, 1_000]) {
      await peer.cut();
      assertEquals(await heard.next(), ["connection", "reconnecting"]);
      assertEquals(await clock.timeouts.next(), ms);
      clock.advance(ms);
      peer = await stage.back(heard);
      assertEquals(await heard.next(), ["welcome", 5]);
    }
    clock.advance(10_001);
    await peer.cut();
    assertEquals(await clock.timeouts.next(), 0);
  },
);

play("a server that is not there yet is tried again", async (stage) => {
  using clock = new FakeClock();
  const gone = new FakeServer();
  const { port } = gone;
  await gone[Symbol.asyncDispose]();
  const { client, heard } = stage.connect({}, `ws://127.0.0.1:${port}/`);
  for (const ms of [500, 1_000]) {
    assertEquals(await clock.timeouts.next(), ms);
    assertEquals(client.connection, "connecting");
    if (ms === 500) clock.advance(ms);
  }
  await using late = new FakeServer(port);
  clock.advance(1_000);
  await late.accept();
  assertEquals(await heard.next(), ["connection", "open"]);
  client.close();
});

play("bye brings the client back after its retry, counted from the bye", async (stage) => {
  using clock = new FakeClock();
  const { heard, peer } = await stage.ann();
  peer.say({ type: "bye", retry: 3_000 });
  assertEquals(await clock.timeouts.next(), 3_000);
  clock.advance(1_000);
  await peer.cut(1001, "going away");
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  assertEquals(await clock.timeouts.next(), 2_000);
  clock.advance(1_999);
  assertEquals(stage.server.requests.length, 1);
  clock.advance(1);
  const again = await stage.server.accept();
  assertEquals(again.url.searchParams.get("after"), "e:5");
});

play("of two byes the last counts", async (stage) => {
  using clock = new FakeClock();
  const { client, heard, peer } = await stage.ann();
  peer.say({ type: "bye", retry: 5_000 }, { type: "bye", retry: 1_000 });
  assertEquals([await clock.timeouts.next(), await clock.timeouts.next()], [5_000, 1_000]);
  clock.advance(1_000);
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  clock.advance(await clock.timeouts.next());
  const again = await stage.back(heard);
  clock.advance(4_000);
  client.members();
  assertEquals((await again.next()).type, "members");
  assertEquals(client.connection, "open");
});

play("after a bye nothing new is sent; if the server stays, the client goes", async (stage) => {
  using clock = new FakeClock();
  const { client, heard, peer } = await stage.ann();
  const early = client.send("early");
  assertEquals((await peer.next()).message, "early");
  peer.say({ type: "bye", retry: 3_000 });
  assertEquals(await clock.timeouts.next(), 3_000);
  const late = client.send("late");
  client.members();
  assertEquals((await peer.next()).type, "members");
  peer.say(ack("1", 6));
  assertEquals((await early).seq, 6);
  clock.advance(3_000);
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  assertEquals(await clock.timeouts.next(), 0);
  clock.advance(0);
  const again = await stage.back(heard, { recovered: true });
  assertEquals(await again.some(2), [
    { type: "members", room: "lobby" },
    { type: "chat", room: "lobby", id: "2", message: "late" },
  ]);
  again.say(ack("2", 7));
  assertEquals((await late).seq, 7);
});

for (const code of [1001, 1013, 1011]) {
  play(`a close ${code} brings the client back with its cursor`, async (stage) => {
    const { peer } = await stage.ann();
    await peer.cut(code, "why");
    const again = await stage.server.accept();
    assertEquals(again.url.searchParams.get("after"), "e:5");
  });
}

for (
  const [code, reason, name] of [
    [1008, "rate limited", "rate_limited"],
    [1008, "not allowed", "not_allowed"],
    [1008, "token expired", "token_expired"],
    [1009, "message too big", "message_too_big"],
  ] as const
) {
  play(`a close ${code} "${reason}" is final`, async (stage) => {
    const { client, heard, peer } = await stage.ann({ token: "fixed" });
    const flying = client.send(1);
    await peer.next();
    await peer.cut(code, reason);
    const message = `Closed by the server: ${code} ${reason}`;
    assertEquals(await heard.next(), ["error", { code: name, message, room: undefined }]);
    assertEquals(await heard.next(), ["connection", "closed"]);
    await assertCode(flying, "unknown");
    await assertCode(client.send(2), "closed");
    await assertCode(client.members(), "closed");
    assertEquals(stage.server.requests.length, 1);
  });
}

play("a close 1008 token expired brings a client with a token function back", async (stage) => {
  let asked = 0;
  const { peer } = await stage.ann({ token: () => `t${++asked}` });
  await peer.cut(1008, "token expired");
  const again = await stage.server.accept();
  assertEquals(again.protocols, "parley.v1, token.t2");
  assertEquals(again.url.searchParams.get("after"), "e:5");
});

// The door.

for (const status of [400, 401, 403, 404]) {
  play(`a refusal ${status} at the door is final and its reason reported`, async (stage) => {
    const asked: (string | null)[] = [];
    stage.server.door = ({ headers }) => {
      asked.push(headers.get("authorization"));
      return Response.json({ type: "error", code: "why", message: "Because." }, { status });
    };
    const { client, heard } = stage.connect({ token: "t", history: 2 });
    const waiting = client.send(1);
    assertEquals(await heard.next(), ["error", {
      code: "why",
      message: "Because.",
      room: undefined,
    }]);
    assertEquals(await heard.next(), ["connection", "closed"]);
    assertEquals(stage.server.requests, ["WS /chat/lobby?history=2", "GET /chat/lobby?history=2"]);
    assertEquals(asked, [null, "Bearer t"]);
    await assertCode(waiting, "closed");
  });
}

play("a proxy's own page is no refusal: it is reported once and tried again", async (stage) => {
  using clock = new FakeClock();
  const { client, heard, peer } = await stage.ann();
  const pages: [number, string][] = [
    [404, "404 page not found"],
    [404, "404 page not found"],
    [403, "<h1>Forbidden</h1>"],
    [408, "{}"],
    [421, '{"type":"about:blank","code":"x"}'],
    [425, "null"],
    [502, "Bad Gateway"],
    [200, '{"type":"error","code":"captive"}'],
    [401, '["error"]'],
  ];
  stage.server.door = () => new Response("", { status: 503 });
  await peer.cut();
  for (const [status, body] of pages) {
    const delay = await clock.timeouts.next();
    stage.server.door = ({ headers }) => {
      return new Response(body, { status: headers.has("upgrade") ? 500 : status });
    };
    clock.advance(delay);
  }
  const last = await clock.timeouts.next();
  stage.server.door = () => undefined;
  clock.advance(last);
  await (await stage.server.accept()).next();
  const codes: unknown[] = [];
  for (let value = await heard.next(); value[1] !== "open"; value = await heard.next()) {
    codes.push(value[0] === "error" ? (value[1] as ParleyError).code : value[1]);
  }
  assertEquals(codes, [
    "reconnecting",
    ...["http_404", "http_403", "http_408", "http_421", "http_425", "http_401"],
  ]);
  assertEquals(client.connection, "open");
});

play(
  "a token refused at the door is asked for again, at most three times in a row",
  async (stage) => {
    using clock = new FakeClock();
    let asked = 0;
    stage.server.door = ({ headers }) => {
      const isGood = headers.get("sec-websocket-protocol")?.endsWith("t3");
      if (isGood) return undefined;
      return Response.json({ type: "error", code: "token_expired", message: "Late." }, {
        status: 401,
      });
    };
    const { client, heard } = stage.connect({ token: () => `t${++asked}` });
    for (const ms of [500, 1_000]) {
      assertEquals(await clock.timeouts.next(), ms);
      clock.advance(ms);
    }
    const peer = await stage.server.accept();
    assertEquals(peer.protocols, "parley.v1, token.t3");
    assertEquals(await heard.next(), ["connection", "open"]);
    // After a connection it may be refused twice again, but not three times.
    await peer.cut();
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    for (let i = 0; i < 3; i++) clock.advance(await clock.timeouts.next());
    const error = { code: "token_expired", message: "Late.", room: undefined };
    assertEquals(await heard.next(), ["error", error]);
    assertEquals([asked, client.connection], [6, "closed"]);
  },
);

play(
  "a door that is open after all (426), full (503, 429) or broken is tried again",
  async (stage) => {
    using clock = new FakeClock();
    const answers: [number, string | undefined, number][] = [
      [426, undefined, 500],
      [503, "5", 6_000],
      [429, "2", 4_000],
      [500, undefined, 4_000],
      [200, undefined, 8_000],
      [503, "soon", 10_000],
    ];
    const { client } = stage.connect();
    for (const [status, after, ms] of answers) {
      stage.server.door = ({ headers }) =>
        new Response("no JSON", {
          status: status === 200 && headers.has("upgrade") ? 500 : status,
          headers: after ? { "retry-after": after } : {},
        });
      const delay = await clock.timeouts.next();
      assertEquals([status, delay], [status, ms]);
      assertEquals(client.connection, "connecting");
      clock.advance(delay);
    }
  },
);

// Sending.

play(
  "send() resolves with the place of the message, in whatever order acks come",
  async (stage) => {
    const { client, peer, heard } = await stage.ann();
    const values = [{ a: [1, null] }, "text", 0, null, undefined];
    const sends = values.map((value) => client.send(value));
    const objects = await peer.some(5);
    assertEquals(said(objects), [{ a: [1, null] }, "text", 0, null, ""]);
    assertEquals(ids(objects), ["1", "2", "3", "4", "5"]);
    peer.say(ack("5", 6), chat(6), ack("x", 9), ack("4", 7), ack("3", 8));
    peer.say(ack("2", 9), ack("1", 10, { epoch: "f" }), ack("1", 11));
    assertEquals(await Promise.all(sends), [
      { room: "lobby", epoch: "f", seq: 10 },
      { room: "lobby", epoch: "e", seq: 9 },
      { room: "lobby", epoch: "e", seq: 8 },
      { room: "lobby", epoch: "e", seq: 7 },
      { room: "lobby", epoch: "e", seq: 6 },
    ]);
    assertEquals(await heard.next(), heardChat(6));
  },
);

play("send() rejects with the server's code, or for what cannot be sent", async (stage) => {
  const { client, peer, heard } = await stage.ann();
  const codes = ["forbidden", "bad_message", "not_joined", "new_code"];
  const sends = codes.map((code) => client.send(code));
  peer.say(...codes.map((code, i) => error(code, { id: `${i + 1}`, room: "lobby" })));
  for (const [i, code] of codes.entries()) await assertCode(sends[i], code);
  const circle: Json = {};
  circle.self = circle;
  await assertCode(client.send(circle), "bad_message");
  // JSON would make null of it, which removes a key.
  for (const number of [NaN, -Infinity]) {
    await assertCode(client.send({ list: [number] }), "bad_message");
    await assertCode(client.set("key", number), "bad_message");
    client.note(number);
    assertEquals(((await heard.next())[1] as Json).code, "bad_message");
  }
  await assertCode(client.send(1, { room: "elsewhere" }), "not_joined");
  peer.say(error("bad_json"));
  const [, value] = await heard.next();
  assertEquals((value as Json).code, "bad_json");
});

play("a send may be ignored: its rejection ends nothing", async (stage) => {
  const { client, peer } = await stage.ann();
  client.send(1);
  client.send(1, { room: "elsewhere" });
  client.members("elsewhere");
  await peer.some(2);
  client.close();
  await peer.closed;
});

play("send() keeps what the message was when it was called", async (stage) => {
  const { client, peer } = await stage.ann();
  const message = { n: 1 };
  client.send(message);
  message.n = 2;
  assertEquals((await peer.next()).message, { n: 1 });
});

play(
  "objects of one turn share frames of at most 16 kB of UTF-8, a longer one goes alone",
  async (stage) => {
    const { client, peer } = await stage.ann();
    peer.frames.length = 0;
    for (let i = 0; i < 100; i++) client.send("\u20ac".repeat(200));
    client.send("x".repeat(20_000));
    client.send("tail");
    client.members();
    const objects = await peer.some(103);
    assertEquals(ids(objects).slice(0, 102), Array.from({ length: 102 }, (_, i) => `${i + 1}`));
    const sizes = peer.frames.map((frame) => new TextEncoder().encode(frame).length);
    assertEquals(sizes.filter((size) => size > 16_384).length, 1);
    assertEquals(peer.frames.length, 4 + 1 + 1);
    const one = peer.frames[0].split("\n")[0].length + 400 + 1;
    assert(sizes[0] > 16_384 - one, `a frame of ${sizes[0]} bytes had space for one more`);
    assertEquals(peer.frames.at(-1)?.split("\n").length, 2);
  },
);

play("a frame is filled to its last byte", async (stage) => {
  const { client, peer } = await stage.ann();
  peer.frames.length = 0;
  client.send("");
  const overhead = new TextEncoder().encode(JSON.stringify(await peer.next())).length;
  for (const spare of [0, 1]) {
    client.send("a".repeat(8_191 - overhead));
    client.send("b".repeat(16_384 - 8_192 - overhead + spare));
    await peer.some(2);
  }
  assertEquals(peer.frames.map((frame) => frame.length), [overhead, 16_384, 8_191, 8_193]);
});

play("messages wait for the room's welcome; control goes before it", async (stage) => {
  const { client } = stage.connect();
  const first = client.send("early");
  client.join("Ann");
  const peer = await stage.server.accept();
  assertEquals((await peer.next()).type, "join");
  client.members();
  assertEquals((await peer.next()).type, "members");
  peer.say(welcome());
  assertEquals((await peer.next()).message, "early");
  peer.say(ack("1", 6));
  assertEquals((await first).seq, 6);
});

play("a name changes behind the messages that were sent before", async (stage) => {
  const { client, peer } = await stage.ann();
  client.send(1);
  client.join("Eva");
  client.send(2);
  const objects = await peer.some(3);
  assertEquals(objects.map(({ type }) => type), ["chat", "join", "chat"]);
});

play(
  "what has no answer is sent again, same ids, same order, before what is new",
  async (stage) => {
    const { client, peer, heard } = await stage.ann();
    const sends = [1, 2, 3, 4].map((n) => client.send(n));
    await peer.some(4);
    peer.say(ack("2", 6));
    await sends[1];
    await peer.cut();
    sends.push(client.send(5));
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    let again = await stage.back(heard);
    const second = await again.some(4);
    assertEquals(said(second), [1, 3, 4, 5]);
    assertEquals(ids(second), ["1", "3", "4", "5"]);
    again.say(ack("3", 8));
    await sends[2];
    await again.cut();
    again = await stage.server.accept();
    await again.next();
    again.say(welcome({ recovered: true }));
    assertEquals(ids(await again.some(3)), ["1", "4", "5"]);
    again.say(ack("1", 7), ack("4", 9), ack("5", 10));
    assertEquals((await Promise.all(sends)).map(({ seq }) => seq), [7, 6, 8, 9, 10]);
  },
);

play("in another epoch what was sent rejects as unknown, what was not goes on", async (stage) => {
  const { client, peer, heard } = await stage.ann();
  const sent = client.send("sent");
  await peer.next();
  await peer.cut();
  const fresh = client.send("fresh");
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.back(heard, { epoch: "f", seq: 0, recovered: false });
  await assertCode(sent, "unknown");
  assertEquals(await again.next(), { type: "chat", room: "lobby", id: "2", message: "fresh" });
  again.say(ack("2", 1, { epoch: "f" }));
  assertEquals(await fresh, { room: "lobby", epoch: "f", seq: 1 });
});

play(
  "after 4 minutes what was sent rejects as unknown, what was not still waits",
  async (stage) => {
    using clock = new FakeClock();
    const { client, peer, heard } = await stage.ann();
    const sent = client.send("sent");
    await peer.next();
    stage.server.door = () => new Response(null, { status: 503 });
    await peer.cut();
    const fresh = client.send("fresh");
    for (let waited = 0; waited <= 240_000;) {
      const ms = await clock.timeouts.next();
      waited += ms;
      clock.advance(ms);
    }
    assertEquals(await clock.timeouts.next(), 10_000);
    clock.advance(5_000);
    await assertCode(sent, "unknown");
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    stage.server.door = () => undefined;
    clock.advance(5_000);
    const again = await stage.back(heard);
    assertEquals((await again.next()).message, "fresh");
    again.say(ack("2", 6));
    assertEquals((await fresh).seq, 6);
  },
);

play("no answer within 4 minutes of an open connection rejects as unknown, too", async (stage) => {
  using clock = new FakeClock();
  const { client, peer } = await stage.ann();
  const sent = client.send("sent");
  await peer.next();
  for (let i = 0; i < 80; i++) {
    clock.advance(3_000);
    client.members();
    await peer.next();
    peer.say({ type: "members", room: "lobby", members: [], count: 0 });
    await client.members();
  }
  clock.advance(1_001);
  await assertCode(sent, "unknown");
});

play(
  "frames keep to the server's own limit, and one message over it rejects alone",
  async (stage) => {
    const { client, heard } = stage.connect({ name: "Ann" });
    for (let i = 0; i < 50; i++) client.listen(`a-room-with-a-long-name-${i}`);
    const sends = [
      client.send("x".repeat(5_000)),
      client.send("é".repeat(2_000)),
      ...Array.from({ length: 60 }, (_, i) => client.send("x".repeat(100) + i)),
    ];
    const serve = async (messageBytes: number | undefined) => {
      const peer = await stage.server.accept();
      await peer.some(51);
      assertEquals(await heard.next(), ["connection", "open"]);
      // Before the server has said its limit, one object a frame.
      assertEquals(peer.frames.length, 51);
      peer.say(welcome({ limits: messageBytes && { messageBytes } }));
      return peer;
    };
    const peer = await serve(4_096);
    await assertCode(sends[0], "too_big");
    const lines = await peer.some(61);
    for (const frame of peer.frames) {
      assert(new TextEncoder().encode(frame).length <= 4_096);
    }
    assert(peer.frames.length < 60, "messages share frames");
    assertEquals(ids(lines), lines.map((_, i) => `${i + 1}`));
    await assertRejects(() => client.send("é".repeat(2_048)), ParleyError, "at most 4096 bytes");
    assertEquals(client.connection, "open");
    // What another server takes may be more: it says so, or there is no limit that it tells.
    await peer.cut();
    assertEquals((await heard.next())[0], "welcome");
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    const other = await serve(undefined);
    await other.some(61);
    client.send("y".repeat(50_000));
    assertEquals((await other.next()).message, "y".repeat(50_000));
  },
);

play(
  "note() goes out with the rest while there is a connection, and is told by onNote",
  async (stage) => {
    using clock = new FakeClock();
    const notes = new Inbox<unknown>("a note");
    const { client, heard, peer } = await stage.ann({ onNote: (note) => notes.push(note) });
    peer.say(joined("Ann"));
    await heard.next();
    client.send("first");
    client.note({ typing: true });
    assertEquals((await peer.next()).message, "first");
    assertEquals(await peer.next(), { type: "note", room: "lobby", message: { typing: true } });
    const note = { room: "lobby", time: 7, sender: "Bob", message: [1] };
    peer.say({ type: "note", ...note, more: 1 }, { type: "note", ...note, room: "other" });
    assertEquals(await notes.next(), note);
    // A refused one is neither repeated nor taken for a join, and nothing new goes out meanwhile.
    peer.say(error("rate_limited", { room: "lobby", retry: 50 }));
    assertEquals(await clock.timeouts.next(), 50);
    client.note("dropped");
    clock.advance(50);
    client.note("now");
    assertEquals((await peer.next()).message, "now");
    await peer.cut();
    client.note("nobody hears it");
    clock.advance(await clock.timeouts.next());
    const again = await stage.server.accept();
    assertEquals((await again.next()).type, "join");
    again.say(welcome({ recovered: true }));
    assertEquals((await again.next()).message, "first");
    assertEquals(notes.size, 0);
  },
);

play("history() reads pages of messages, and rejects with the server's reason", async (stage) => {
  const { client } = stage.connect({ token: "t" }, `${stage.server.url}/rt/chat/ops?k=v`);
  await stage.server.accept();
  const message = { room: "ops", seq: 4, time: 7, sender: "Bob", message: "m4" };
  let answer = () =>
    Response.json({
      ...{ room: "ops", epoch: "e", seq: 4, recovered: false },
      messages: [{ type: "chat", ...message }],
    });
  const headers: (string | null)[] = [];
  stage.server.door = (request) => (headers.push(request.headers.get("authorization")), answer());
  assertEquals(await client.history({ before: { epoch: "e", seq: 5 }, limit: 1 }), {
    ...{ room: "ops", epoch: "e", seq: 4, recovered: false },
    messages: [{ ...message, epoch: "e" }],
  });
  await client.history({ room: "dev", after: { epoch: "e", seq: 5 } });
  assertEquals(stage.server.requests.slice(1), [
    "GET /rt/rooms/ops/messages?k=v&before=e%3A5&limit=1",
    "GET /rt/rooms/dev/messages?k=v&after=e%3A5",
  ]);
  assertEquals(headers, ["Bearer t", "Bearer t"]);
  answer = () => Response.json(error("forbidden"), { status: 403 });
  await assertCode(client.history(), "forbidden");
  answer = () => new Response("Bad Gateway", { status: 502 });
  await assertCode(client.history(), "http_502");
  await assertCode(client.history({ room: "a b" }), "bad_room");
});

play("a token over the server's limit is not sent", async (stage) => {
  const { client, heard } = stage.connect({ token: () => "t".repeat(4_090) });
  const peer = await stage.server.accept();
  peer.say(welcome({ limits: { messageBytes: 4_096 } }));
  await heard.next();
  await heard.next();
  await assertCode(client.refreshToken(), "too_big");
  assertEquals(client.connection, "open");
});

play("at most 1,000 are unanswered and 10,000 wait", async (stage) => {
  const { client, peer } = await stage.ann();
  const sends = Array.from({ length: 10_000 }, (_, n) => client.send(n));
  await assertCode(client.send("one more"), "busy");
  let seq = 5;
  for (let done = 0; done < 10_000; done += 1_000) {
    const objects = await peer.some(1_000);
    assertEquals(said(objects), Array.from({ length: 1_000 }, (_, i) => done + i));
    const members = client.members();
    assertEquals((await peer.next()).type, "members");
    peer.say({ type: "members", room: "lobby", members: [], count: 0 });
    await members;
    peer.say(...objects.map(({ id }) => ack(id, ++seq)));
  }
  assertEquals((await Promise.all(sends)).map((receipt) => receipt.seq - 6), [...sends.keys()]);
});

play("no id is sent that is 1,000 away from one without an answer", async (stage) => {
  const { client, peer } = await stage.ann();
  const sends = Array.from({ length: 1_100 }, (_, n) => client.send(n));
  const objects = await peer.some(1_000);
  peer.say(...objects.slice(1).map(({ id }, i) => ack(id, 7 + i)));
  await Promise.all(sends.slice(1, 1_000));
  client.members();
  assertEquals((await peer.next()).type, "members");
  peer.say(ack("1", 6));
  assertEquals(ids(await peer.some(100)), Array.from({ length: 100 }, (_, i) => `${1_001 + i}`));
});

play("a room that does not answer holds no other up", async (stage) => {
  const { client, peer } = await stage.ann();
  client.join("Ann", "slow");
  await peer.next();
  client.send("slow 1", { room: "slow" });
  client.send("home 1");
  client.send("slow 2", { room: "slow" });
  client.send("home 2");
  assertEquals(said(await peer.some(2)), ["home 1", "home 2"]);
  peer.say(welcome({ room: "slow" }));
  assertEquals(said(await peer.some(2)), ["slow 1", "slow 2"]);
});

// Refusals that pass.

play(
  "rate_limited stops sending for its retry, then the refused go first, in order",
  async (stage) => {
    using clock = new FakeClock();
    const { client, peer } = await stage.ann();
    const sends = [1, 2, 3, 4, 5].map((n) => client.send(n));
    await peer.some(5);
    const limited = (id: string) => error("rate_limited", { id, room: "lobby", retry: 40 });
    peer.say(ack("1", 6), ack("2", 7), limited("3"), limited("4"), ack("5", 8));
    await sends[4];
    assertEquals(await clock.timeouts.next(), 40);
    sends.push(client.send(6));
    const members = client.members();
    assertEquals((await peer.next()).type, "members");
    peer.say({ type: "members", room: "lobby", members: [], count: 0 });
    await members;
    clock.advance(40);
    const seen: unknown[] = [];
    for (let seq = 9; seq <= 11; seq++) {
      const object = await peer.next();
      seen.push(object.message);
      peer.say(ack(object.id, seq));
    }
    assertEquals(seen, [3, 4, 6]);
    assertEquals((await Promise.all(sends)).map(({ seq }) => seq), [6, 7, 9, 10, 8, 11]);
  },
);

play("a refused burst is not repeated as a burst, and keeps its order", async (stage) => {
  using clock = new FakeClock();
  const { client, peer } = await stage.ann();
  const sends = Array.from({ length: 1_000 }, (_, n) => client.send(n));
  // An answer carries TCP's acknowledgement: without one, each second small frame waits 40 ms.
  peer.socket.addEventListener("message", () => peer.say({ type: "nothing" }));
  const accepted: unknown[] = [];
  let refusals = 0;
  for (let tokens = 100; accepted.length < 1_000; tokens = 1) {
    const members = client.members();
    const answers: Json[] = [];
    for (let object = await peer.next(); object.type === "chat"; object = await peer.next()) {
      if (tokens-- > 0) answers.push(ack(object.id, 5 + accepted.push(object.message)));
      else answers.push(error("rate_limited", { id: object.id, retry: 10 }));
    }
    peer.say(...answers, { type: "members", room: "lobby", members: [], count: 0 });
    await members;
    while (clock.timeouts.size > 0) {
      assertEquals(await clock.timeouts.next(), 10);
      refusals++;
    }
    clock.advance(10);
  }
  await Promise.all(sends);
  assertEquals(accepted, [...sends.keys()]);
  assert(refusals < 3_000, `${refusals} refusals for 1,000 messages at their pace`);
});

play("what was refused before it was kept is bound neither by time nor by epoch", async (stage) => {
  using clock = new FakeClock();
  const { client, peer, heard } = await stage.ann();
  const send = client.send("patient");
  await peer.next();
  peer.say(error("rate_limited", { id: "1", room: "lobby", retry: 300_000 }));
  assertEquals(await clock.timeouts.next(), 300_000);
  for (let i = 0; i < 15; i++) {
    clock.advance(20_000);
    if (i === 14) break;
    const members = client.members();
    await peer.next();
    peer.say({ type: "members", room: "lobby", members: [], count: 0 });
    await members;
  }
  const { id, message } = await peer.next();
  assertEquals(message, "patient");
  peer.say(error("rate_limited", { id, room: "lobby", retry: 1 }));
  assertEquals(await clock.timeouts.next(), 1);
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  clock.advance(await clock.timeouts.next());
  const again = await stage.back(heard, { epoch: "f", seq: 0, recovered: false });
  const last = await again.next();
  assertEquals(last.message, "patient");
  again.say(ack(last.id, 1, { epoch: "f" }));
  assertEquals((await send).epoch, "f");
});

play("an ack ends the backoff of unavailable", async (stage) => {
  using clock = new FakeClock();
  const { client, peer } = await stage.ann();
  for (const _ of [1, 2]) {
    const send = client.send("x");
    for (const ms of [500, 1_000]) {
      peer.say(error("unavailable", { id: (await peer.next()).id, room: "lobby" }));
      assertEquals(await clock.timeouts.next(), ms);
      clock.advance(ms);
    }
    peer.say(ack((await peer.next()).id, 6));
    await send;
  }
});

play(
  "unavailable repeats with the same id after a backoff, but not in another epoch",
  async (stage) => {
    using clock = new FakeClock();
    const { client, peer, heard } = await stage.ann();
    const send = client.send("kept?");
    for (const ms of [500, 1_000, 2_000]) {
      assertEquals((await peer.next()).id, "1");
      peer.say(error("unavailable", { id: "1", room: "lobby" }));
      assertEquals(await clock.timeouts.next(), ms);
      clock.advance(ms);
    }
    assertEquals((await peer.next()).id, "1");
    peer.say(error("rate_limited", { id: "1", room: "lobby", retry: 7 }));
    assertEquals(await clock.timeouts.next(), 7);
    clock.advance(7);
    assertEquals((await peer.next()).id, "1");
    await peer.cut();
    assertEquals(await heard.next(), ["connection", "reconnecting"]);
    clock.advance(await clock.timeouts.next());
    await stage.back(heard, { epoch: "f", seq: 0, recovered: false });
    await assertCode(send, "unknown");
  },
);

play(
  "a join, listen or leave that was refused for now is repeated, messages wait for it",
  async (stage) => {
    using clock = new FakeClock();
    const { client, peer, heard } = await stage.ann();
    peer.say(joined("Ann"));
    assertEquals(await heard.next(), ["status", joined("Ann")]);
    client.join("Eva");
    client.listen("ops");
    client.join("Eva", "dev");
    const send = client.send(1);
    client.leave("dev");
    const asked = await peer.some(5);
    const limited = (room: string) => error("rate_limited", { room, retry: 50 });
    peer.say(limited("lobby"), limited("ops"), error("not_joined", { id: "1", room: "lobby" }));
    peer.say(limited("dev"));
    for (let i = 0; i < 3; i++) assertEquals(await clock.timeouts.next(), 50);
    clock.advance(50);
    const repeated = await peer.some(4);
    assertEquals(repeated.map(({ type, room }) => [type, room]), [
      ["join", "lobby"],
      ["listen", "ops"],
      ["leave", "dev"],
      ["chat", "lobby"],
    ]);
    assertEquals(asked.map(({ type }) => type), ["join", "listen", "join", "chat", "leave"]);
    peer.say(ack(repeated[3].id, 6));
    assertEquals((await send).seq, 6);
  },
);

play("members() that is refused for now rejects and is not taken for a join", async (stage) => {
  using clock = new FakeClock();
  const { client, peer } = await stage.ann();
  const asked = client.members();
  await peer.next();
  peer.say(error("rate_limited", { room: "lobby", retry: 50 }));
  await assertCode(asked, "rate_limited");
  assertEquals(await clock.timeouts.next(), 50);
  clock.advance(50);
  client.send("next");
  assertEquals((await peer.next()).message, "next");
});

// Rooms.

play("a room that may not be heard is reported and forgotten", async (stage) => {
  const { client, peer, heard } = await stage.ann();
  client.join("Ann", "_own");
  const send = client.send(1, { room: "_own" });
  await peer.next();
  peer.say(error("forbidden", { room: "_own" }));
  const told = { code: "forbidden", message: "Text of forbidden.", room: "_own" };
  assertEquals(await heard.next(), ["error", told]);
  await assertCode(send, "forbidden");
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.back(heard);
  const members = client.members();
  assertEquals((await again.next()).type, "members");
  again.say({ type: "members", room: "lobby", members: ["Ann"], count: 1 });
  await members;
});

play("leave() stops a room: nothing of it is heard or asked for again", async (stage) => {
  const { client, peer, heard } = await stage.ann();
  client.join("Ann", "ops");
  const held = client.send("held", { room: "ops" });
  const sent = client.send("sent");
  client.leave();
  client.leave("ops");
  client.leave("nowhere");
  const objects = await peer.some(4);
  assertEquals(objects.map(({ type, room }) => [type, room]), [
    ["join", "ops"],
    ["chat", "lobby"],
    ["leave", "lobby"],
    ["leave", "ops"],
  ]);
  await assertCode(held, "closed");
  await assertCode(client.send(1), "not_joined");
  peer.say(welcome({ room: "ops" }), chat(6), chat(6, { room: "ops" }), { type: "bye", retry: 0 });
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  await assertCode(sent, "unknown");
  const again = await stage.server.accept();
  assertEquals(again.url.search, "");
  assertEquals(await again.next(), { type: "leave", room: "lobby" });
  client.listen("lobby");
  assertEquals(await again.next(), { type: "listen", room: "lobby" });
  again.say(chat(7), welcome({ seq: 8 }), chat(9));
  assertEquals(await heard.next(), ["connection", "open"]);
  assertEquals(await heard.next(), ["welcome", 8]);
  assertEquals(await heard.next(), heardChat(9));
});

play("members() answers each who asked, across a reconnect, or rejects", async (stage) => {
  const { client, peer, heard } = await stage.ann();
  const asked = [client.members(), client.members()];
  assertEquals(await peer.next(), { type: "members", room: "lobby" });
  await peer.cut();
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  const again = await stage.back(heard);
  assertEquals(await again.next(), { type: "members", room: "lobby" });
  again.say({ type: "members", room: "lobby", members: ["Ann", "Bob"], count: 2 });
  const answer = { members: ["Ann", "Bob"], count: 2 };
  assertEquals(await Promise.all(asked), [answer, answer]);
  const refused = client.members("ops");
  assertEquals((await again.next()).room, "ops");
  again.say(error("not_joined", { room: "ops" }));
  await assertCode(refused, "not_joined");
});

// A dead network.

play("25 s of silence ask for a pong, 8 s without one bring the client back", async (stage) => {
  using clock = new FakeClock();
  const { peer, heard } = await stage.ann();
  clock.advance(25_000);
  assertEquals(await peer.next(), { type: "ping" });
  peer.say({ type: "pong" }, chat(6));
  assertEquals(await heard.next(), heardChat(6));
  clock.advance(20_000);
  peer.say(chat(7));
  assertEquals(await heard.next(), heardChat(7));
  clock.advance(25_000);
  assertEquals(await peer.next(), { type: "ping" });
  clock.advance(7_999);
  assertEquals(heard.size, 0);
  clock.advance(1);
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
  clock.advance(0);
  assertEquals((await stage.server.accept()).url.searchParams.get("after"), "e:7");
});

for (const ask of ["send", "members"] as const) {
  play(
    `who waits for an answer to ${ask}() learns of a dead network within 15 s`,
    async (stage) => {
      using clock = new FakeClock();
      const { client, peer, heard } = await stage.ann();
      clock.advance(500);
      if (ask === "send") client.send("hello?");
      else client.members();
      await peer.next();
      clock.advance(5_000);
      assertEquals(await peer.next(), { type: "ping" });
      clock.advance(9_999);
      assertEquals(await heard.next(), ["connection", "reconnecting"]);
    },
  );
}

play("an offline event asks for a pong at once, and for it within 4 s", async (stage) => {
  using clock = new FakeClock();
  const { peer, heard } = await stage.ann();
  dispatchEvent(new Event("offline"));
  assertEquals(await peer.next(), { type: "ping" });
  // Another network took over: all is well.
  peer.say({ type: "pong" }, chat(6));
  assertEquals(await heard.next(), heardChat(6));
  clock.advance(10_000);
  assertEquals(heard.size, 0);
  dispatchEvent(new Event("offline"));
  assertEquals(await peer.next(), { type: "ping" });
  clock.advance(4_000);
  assertEquals(await heard.next(), ["connection", "reconnecting"]);
});

play("a system clock that is set ends neither sends nor the connection", async (stage) => {
  using clock = new FakeClock();
  const { client, peer, heard } = await stage.ann();
  const send = client.send("patient");
  await peer.next();
  const { now } = Date;
  try {
    for (const ms of [3_600_000, -3_600_000]) {
      Date.now = () => now() + ms;
      clock.advance(1_000);
    }
  } finally {
    Date.now = now;
  }
  assertEquals([heard.size, client.connection], [0, "open"]);
  peer.say(ack("1", 6));
  assertEquals((await send).seq, 6);
});

play("a handshake that hangs is given up after 20 s", async (stage) => {
  using clock = new FakeClock();
  const knocked = new Inbox<void>("a request");
  const { promise, resolve } = Promise.withResolvers<Response>();
  stage.server.door = () => {
    knocked.push();
    return promise;
  };
  stage.connect();
  await knocked.next();
  clock.advance(25_000);
  assertEquals(await clock.timeouts.next(), 500);
  stage.server.door = () => undefined;
  clock.advance(500);
  await stage.server.accept();
  resolve(new Response());
});

play(
  "when the network returns the client does not wait for its backoff, only for the server's",
  async (stage) => {
    using clock = new FakeClock();
    stage.server.door = () => new Response(null, { status: 500 });
    const { heard } = stage.connect();
    assertEquals(await clock.timeouts.next(), 500);
    stage.server.door = () => new Response(null, { status: 503, headers: { "retry-after": "7" } });
    dispatchEvent(new Event("online"));
    assertEquals(await clock.timeouts.next(), 0);
    clock.advance(0);
    assertEquals(await clock.timeouts.next(), 8_000);
    dispatchEvent(new Event("online"));
    assertEquals(await clock.timeouts.next(), 7_000);
    stage.server.door = () => undefined;
    clock.advance(7_000);
    const peer = await stage.server.accept();
    assertEquals(await heard.next(), ["connection", "open"]);
    dispatchEvent(new Event("online"));
    assertEquals(await peer.next(), { type: "ping" });
  },
);

// The end.

play(
  "close() rejects what waits, calls nothing back, leaves no timer and no listener",
  async (stage) => {
    using clock = new FakeClock();
    const listeners: string[] = [];
    const { addEventListener, removeEventListener } = globalThis;
    globalThis.addEventListener = (type: string) => void listeners.push(`+${type}`);
    globalThis.removeEventListener = (type: string) => void listeners.push(`-${type}`);
    const { client, peer, heard } = await stage.ann();
    const sends = [client.send("refused"), client.send("flying")];
    const asked = client.members("ops");
    await peer.some(3);
    peer.say(error("rate_limited", { id: "1", room: "lobby", retry: 50 }));
    await clock.timeouts.next();
    sends.push(client.send("held"));
    peer.say(chat(6), chat(7));
    client.close();
    client.close();
    for (const promise of [...sends, asked, client.send(1)]) await assertCode(promise, "closed");
    client.join("x");
    client.listen("y");
    client.leave();
    await client.refreshToken();
    assertEquals((await peer.closed).code, 1005);
    assertEquals([client.connection, heard.size, clock.size], ["closed", 0, 0]);
    assertEquals(stage.server.requests.length, 1);
    assertEquals(listeners, ["+online", "+offline", "-online", "-offline"]);
    Object.assign(globalThis, { addEventListener, removeEventListener });
  },
);

play("close() in a callback is the last one", async (stage) => {
  const seen: number[] = [];
  const { client, peer } = await stage.ann({
    onMessage: ({ seq }) => {
      seen.push(seq);
      client.close();
    },
  });
  peer.say(chat(6), chat(7));
  await peer.closed;
  assertEquals(seen, [6]);
});

play(
  "close() ends a client that waits for a token, a handshake, a reason or its turn",
  async (stage) => {
    using clock = new FakeClock();
    const token = Promise.withResolvers<string>();
    const first = stage.connect({ token: () => token.promise });
    const unsent = first.client.send(1);
    first.client.close();
    token.resolve("t");
    await assertCode(unsent, "closed");

    const knocked = new Inbox<Request>("a request");
    const answer = Promise.withResolvers<Response>();
    stage.server.door = (request) => {
      knocked.push(request);
      return answer.promise;
    };
    const second = stage.connect();
    await knocked.next();
    second.client.close();

    stage.server.door = (request) => {
      knocked.push(request);
      return request.headers.has("upgrade") ? new Response(null, { status: 500 }) : answer.promise;
    };
    const third = stage.connect();
    await knocked.next();
    assertEquals((await knocked.next()).headers.get("upgrade"), null);
    third.client.close();
    answer.resolve(new Response());

    stage.server.door = () => new Response(null, { status: 500 });
    const fourth = stage.connect();
    await clock.timeouts.next();
    fourth.client.close();

    assertEquals(clock.size, 0);
    for (const { heard, client } of [first, second, third, fourth]) {
      assertEquals([heard.size, client.connection], [0, "closed"]);
    }
  },
);

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import type { Call } from "../../handlers/app.ts";
import { file } from "../../handlers/http/pages.ts";
import { createTestApp } from "../support/fakes.ts";

/** Asks a handler with these headers. */
async function get(handler: ReturnType<typeof file>, headers: HeadersInit = {}): Promise<Response> {
  const request = new Request("http://parley.test/", { headers });
  const visitor = { remote: "", address: "", rights: OPEN_RIGHTS };
  const call: Call = { request, url: new URL(request.url), visitor, room: "" };
  return await handler(call);
}

Deno.test("file() gives the text, its type and its tag", async () => {
  const response = await get(file(() => "let x;", "text/javascript"));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("content-type"), "text/javascript; charset=utf-8");
  assertEquals(response.headers.get("cache-control"), "no-cache");
  assert(response.headers.get("etag"));
  assertEquals(await response.text(), "let x;");
});

Deno.test("file() answers 304 to a browser that has this very file", async () => {
  const handler = file(() => "a", "text/css");
  const etag = (await get(handler)).headers.get("etag")!;
  const known = await get(handler, { "if-none-match": `"old", ${etag}` });
  assertEquals([known.status, await known.text()], [304, ""]);
  assertEquals(known.headers.get("etag"), etag);
  const old = await get(handler, { "if-none-match": '"old"' });
  assertEquals([old.status, await old.text()], [200, "a"]);
  const other = await get(file(() => "b", "text/css"));
  assertNotEquals(other.headers.get("etag"), etag);
  await other.body?.cancel();
});

Deno.test("file() lets a page run no script but the server's own", async () => {
  const policy = (response: Response) => response.headers.get("content-security-policy");
  const page = await get(file(() => "<p>", "text/html"));
  assertStringIncludes(policy(page)!, "default-src 'none'; script-src 'self'");
  await page.body?.cancel();
  const script = await get(file(() => "let x;", "text/javascript"));
  assertEquals(policy(script), null);
  await script.body?.cancel();
});

Deno.test("each page keeps its own policy and loads what is there, below a prefix too", async () => {
  for (const prefix of ["", "/a/rt"]) {
    const { ask } = createTestApp({ prefix });
    for (const page of [`${prefix}/`, `${prefix}/dashboard`]) {
      const response = await ask(page);
      assertEquals(response.status, 200);
      assertEquals(response.headers.get("content-type"), "text/html; charset=utf-8");
      const html = await response.text();
      assertEquals(html.match(/<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=/g), null);
      const links = [...html.matchAll(/\s(?:src|href)="((?!data:)[^"]*)"/g)].map(([, path]) =>
        path
      );
      assert(links.length > 0);
      for (const link of links) {
        const { pathname } = new URL(link, `http://parley.test${page}`);
        const part = await ask(pathname);
        assertEquals(part.status, 200, pathname);
        await part.body?.cancel();
      }
    }
  }
});

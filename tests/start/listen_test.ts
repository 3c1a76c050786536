import { assertEquals } from "@std/assert";
import { listen } from "../../handlers/start/listen.ts";
import { defaultSettings } from "../../handlers/start/settings.ts";
import { silentLog } from "../../handlers/util/log.ts";

Deno.test("shutdown() lets an answer under way end, and does not wait for a reader that stalls", async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<Response>();
  const pull = (body: ReadableByteStreamController) => body.enqueue(new Uint8Array(65_536));
  const server = await listen({
    settings: { ...defaultSettings(), HOST: "127.0.0.1", PORT: 0 },
    handler({ url }) {
      if (url.endsWith("/endless")) {
        return Promise.resolve(new Response(new ReadableStream({ type: "bytes", pull })));
      }
      asked.resolve();
      return answer.promise;
    },
    log: silentLog,
    health: {},
  });
  const endless = await fetch(`${server.address}/endless`);
  const slow = fetch(`${server.address}/slow`);
  await asked.promise;
  const stopped = server.shutdown();
  answer.resolve(new Response("done"));
  assertEquals(await (await slow).text(), "done");
  await stopped;
  await endless.body?.cancel();
});

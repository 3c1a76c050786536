/**
 * Parley below `/rt` of a Hono app: the app's own routes beside it.
 *
 *     deno run -A tests/examples/hono_prefix.ts
 *
 * @module
 */
import { Hono } from "npm:hono@4.13.19";
import { createParley, type Parley } from "../../handlers/parley.ts";

/** Makes the app. `parley` has the prefix `/rt`. */
export function createApp(parley: Parley): Hono<{ Bindings: Deno.ServeHandlerInfo }> {
  const app = new Hono<{ Bindings: Deno.ServeHandlerInfo }>();
  app.get("/", (c) => c.text("Hello from Hono"));
  // The request itself, not a copy: only it can become a socket.
  app.all("/rt/*", (c) => parley.fetch(c.req.raw, c.env));
  return app;
}

if (import.meta.main) Deno.serve(createApp(createParley({ prefix: "/rt" })).fetch);

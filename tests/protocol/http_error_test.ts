import { assertEquals, assertInstanceOf } from "@std/assert";
import { HttpError } from "../../handlers/protocol/http_error.ts";

Deno.test("HttpError.toResponse() is the JSON error of the protocol, with the error's headers", async () => {
  const error = new HttpError(503, "full", "The server is full.", { "retry-after": "5" });
  assertInstanceOf(error, Error);
  const response = error.toResponse();
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("content-type"), "application/json");
  assertEquals(response.headers.get("retry-after"), "5");
  assertEquals(await response.json(), {
    type: "error",
    code: "full",
    message: "The server is full.",
  });
});

import { assertEquals } from "@std/assert";
import { Line } from "../../handlers/registry/sender.ts";

Deno.test("Line.run() runs at once where nothing holds the line", () => {
  const line = new Line();
  assertEquals(line.run(() => 1), 1);
  assertEquals(line.hold(() => 2), 2);
  assertEquals(line.run(() => 3), 3, "a task that is done at once holds nothing");
});

Deno.test("Line keeps the order behind tasks that take time, also one that fails", async () => {
  const line = new Line();
  const order: string[] = [];
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const first = line.hold(async () => {
    await gates[0].promise;
    order.push("first");
    throw new Error("refused");
  }) as Promise<void>;
  const seen = first.catch(() => order.push("failed"));
  const later = line.run(() => order.push("second"));
  const held = line.hold(async () => {
    await gates[1].promise;
    order.push("third");
  });
  const last = line.run(() => order.push("last"));
  assertEquals(order, []);
  gates[1].resolve();
  gates[0].resolve();
  await Promise.all([seen, later, held, last]);
  assertEquals(order.filter((step) => step !== "failed"), ["first", "second", "third", "last"]);
  assertEquals(line.run(() => "at once again"), "at once again");
});

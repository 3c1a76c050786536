/** `grafana.json`, to be imported into Grafana: it asks for what `/metrics` has. */
import { assert, assertEquals } from "@std/assert";
import grafana from "./grafana.json" with { type: "json" };
import { startServer } from "../support/servers.ts";

Deno.test("each panel of grafana.json asks for metrics and labels that /metrics has", async () => {
  await using server = await startServer();
  // With a remote engine there are its metrics, too.
  const engine = server.registry.engineOf("");
  const stats = engine.stats.bind(engine);
  const remote = { commands: 0, reconnects: 0, roundTrips: 0, roundTripSeconds: 0 };
  engine.stats = () => ({ ...stats(), remote });
  server.registry.counters.refuse("bad_json");
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const names = new Set(text.match(/^(?:parley|process)_\w+/gm));
  const queries = [
    ...grafana.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...grafana.templating.list.map(({ query }) => query).filter((query) => query.includes("(")),
  ];
  const asked = queries.flatMap((query) => query.match(/(?:parley|process)_\w+/g) ?? []);
  assert(asked.length >= grafana.panels.length);
  assertEquals(asked.filter((name) => !names.has(name)), []);
  for (const query of queries) {
    const [, label, name] = /by \((\w+)\) \(?(?:rate\()?(\w+)/.exec(query) ?? [];
    if (!label || label === "instance") continue;
    assert(new RegExp(`^${name}\\{[^}]*\\b${label}=`, "m").test(text), `${name} by ${label}`);
  }
  assertEquals(new Set(grafana.panels.map(({ id }) => id)).size, grafana.panels.length);
});

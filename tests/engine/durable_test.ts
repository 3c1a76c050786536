import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { engineContract } from "./contract.ts";

engineContract("durable", async (limits) => {
  const folder = await Deno.makeTempDir();
  const engine = await createDurableEngine(`${folder}/data.db`, limits, systemClock, silentLog);
  return { nodes: [engine, engine], stop: () => Deno.remove(folder, { recursive: true }) };
});

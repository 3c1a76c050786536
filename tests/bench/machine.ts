/** Names the machine that figures come from. */

async function readLine(path: string, pattern: RegExp): Promise<string> {
  try {
    return pattern.exec(await Deno.readTextFile(path))?.[1] ?? "";
  } catch {
    return "";
  }
}

/** Processor, cores, memory, system and date in one line. */
export async function machine(): Promise<string> {
  const model = await readLine("/proc/cpuinfo", /^model name\s*: (.*)$/m);
  const gigabytes = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  return [
    new Date().toISOString().slice(0, 10),
    `${model || Deno.build.arch}, ${navigator.hardwareConcurrency} cores`,
    `${gigabytes} GB`,
    `${Deno.build.os} ${Deno.osRelease()}`,
    `Deno ${Deno.version.deno}`,
  ].join(", ");
}

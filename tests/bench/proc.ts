/** What Linux says of a process, from `/proc`. */

// USER_HZ is 100 on every Linux that Deno runs on.
const TICKS_A_SECOND = 100;

/** Processor time the process has used, user and system, in seconds. */
export function cpuSeconds(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  // The second field may hold spaces; after its bracket the third begins.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

/** Processor time that all processes of the machine have used, in seconds. */
export function machineCpuSeconds(): number {
  const [all] = Deno.readTextFileSync("/proc/stat").split("\n", 1);
  // user, nice, system, (idle, iowait,) irq, softirq
  const fields = all.split(/\s+/).slice(1).map(Number);
  const [user, nice, system, , , irq, softirq] = fields;
  return (user + nice + system + irq + softirq) / TICKS_A_SECOND;
}

/** Memory of the process's own in RAM, in bytes: without its program file, which the system loads and drops at will. */
export function residentBytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

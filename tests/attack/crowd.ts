/**
 * Many at once.
 *
 * @module
 */
import { RawClient } from "../support/clients.ts";

/** Runs `task` for each index, so many at a time. */
export async function inParallel(
  count: number,
  width: number,
  task: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < count) await task(next++);
  }));
}

/** Sockets of one room, `crowd`, which read what comes and forget it. */
export async function crowdOf(
  { ws }: { ws: string },
  count: number,
  headers: Record<string, string> = {},
): Promise<RawClient[]> {
  const clients: RawClient[] = [];
  await inParallel(count, 50, async () => {
    const client = await RawClient.open(`${ws}/chat/crowd`, headers);
    client.connection.readable.pipeTo(new WritableStream()).catch(() => {});
    clients.push(client);
  });
  return clients;
}

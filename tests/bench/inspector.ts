/** Has a Deno or Node process collect its garbage, through its inspector. */

async function debuggerUrl(port: number): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/json/list`);
  const [{ webSocketDebuggerUrl }] = await response.json();
  return webSocketDebuggerUrl;
}

/**
 * Collects all garbage of the process whose inspector listens on `port` of 127.0.0.1.
 *
 * @see https://chromedevtools.github.io/devtools-protocol/v8/HeapProfiler/
 */
export async function collectGarbage(port: number): Promise<void> {
  const socket = new WebSocket(await debuggerUrl(port));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.onopen = () => {
    // What the first frees may let the second free more.
    for (const id of [1, 2]) {
      socket.send(JSON.stringify({ id, method: "HeapProfiler.collectGarbage" }));
    }
  };
  socket.onerror = () => reject(new Error(`Cannot collect garbage: no inspector at ${port}`));
  socket.onmessage = ({ data }) => {
    if (JSON.parse(data).id === 2) socket.close();
  };
  socket.onclose = () => resolve();
  await promise;
}

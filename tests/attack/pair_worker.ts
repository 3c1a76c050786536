/**
 * The innocent pair, in a thread of its own: what attacks the server does not slow its clock.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { sized } from "../support/run.ts";
import type { PairReport } from "./pair.ts";

/** A message is due so often: half of MESSAGE_RATE as shipped. */
const EVERY_MS = 20;
/** So many may be without an answer: half of the burst that MESSAGE_RATE allows. */
const MAX_UNACKED = 50;
/** What had to wait is made up for at MESSAGE_RATE as shipped: sooner, a refusal would be right. */
const CATCH_UP_MS = 10;
/** An attack that is over sooner is still watched so long. */
const MIN_MESSAGES = sized(5, 20);

const room = `innocent-${crypto.randomUUID()}`;
const latencies: number[] = [];
let startedAt = 0;
let sent = 0;
let sentAt = 0;
let acked = 0;
let received = 0;
let isStopping = false;
let isOver = false;

function open(ws: string): Promise<WebSocket> {
  const socket = new WebSocket(`${ws}/chat/${room}`, "parley.v1");
  socket.onclose = ({ code, reason }) => {
    if (!isOver) fail(`an innocent socket was closed with ${code} ${reason}`);
  };
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = (event) => reject(new Error((event as ErrorEvent).message));
  });
}

function fail(error: string): void {
  if (isOver) return;
  isOver = true;
  self.postMessage({ error });
}

/** When a message is due, in ms of `performance.now()`. */
function dueAt(number: number): number {
  return startedAt + number * EVERY_MS;
}

/** Ann says what is due. One that had to wait counts from when it was due. */
function say(ann: WebSocket): void {
  const now = performance.now();
  if (dueAt(sent + 1) > now || sent - acked >= MAX_UNACKED || now - sentAt < CATCH_UP_MS) return;
  sentAt = now;
  const message = { number: ++sent };
  ann.send(JSON.stringify({ type: "chat", message, id: `${sent}` }));
}

/** Ann is never refused. */
function listen({ data }: MessageEvent): void {
  for (const line of data.split("\n")) {
    const { type } = JSON.parse(line);
    if (type === "ack") acked++;
    if (type === "error") fail(`Ann was refused: ${line}`);
  }
}

/** Bob hears each number of Ann's, once and in order. */
function hear({ data }: MessageEvent): void {
  for (const line of data.split("\n")) {
    const { type, message } = JSON.parse(line);
    if (type !== "chat") continue;
    const { number } = message;
    if (number !== ++received) fail(`message ${received} is missing, ${number} came`);
    latencies.push(performance.now() - dueAt(number));
  }
}

function report(): PairReport {
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor(share * (latencies.length - 1))];
  return { messages: sent, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

async function chat(ws: string): Promise<void> {
  const [ann, bob] = [await open(ws), await open(ws)];
  ann.onmessage = listen;
  bob.onmessage = hear;
  ann.send('{"type":"join","name":"Ann"}');
  startedAt = performance.now();
  const timer = setInterval(() => {
    const isEnough = isStopping && sent >= MIN_MESSAGES;
    if (!isEnough) say(ann);
    else if (received === sent && acked === sent) {
      clearInterval(timer);
      isOver = true;
      ann.close();
      bob.close();
      self.postMessage(report());
    }
  }, EVERY_MS / 4);
  self.postMessage("ready");
}

self.onmessage = ({ data }) => {
  if (data === "stop") isStopping = true;
  else chat(data.ws).catch((error) => fail(String(error)));
};

/** Hooks that ask a backend by URL. `handlers/README.md`, Hook by URL. */
import { createHmac } from "node:crypto";
import { encodeJson, isObject, parseJson } from "../protocol/json.ts";
import { readText } from "../util/bytes.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import {
  type From,
  type HookEvent,
  type Hooks,
  HookUnavailable,
  refuse,
  Refused,
} from "./hooks.ts";

/** Which backend is asked, and about what. */
export interface UrlHooksOptions {
  url: string;
  events: readonly HookEvent[];
  /** How long it may take, in ms. */
  timeoutMs: number;
  /** Signs what is asked; without one it bears no signature. */
  secret?: string;
  /** Of what a client sends. An answer may have three times as many bytes, as `é` is `\u00e9` in JSON of ASCII. */
  maxMessageBytes: number;
  /** How many may wait for it at once. */
  maxWaiting: number;
  log: Log;
  clock?: Clock;
}

/** Makes hooks of a backend's answers. */
export function urlHooks(options: UrlHooksOptions): Hooks {
  const { url, timeoutMs, secret, log, clock = systemClock } = options;
  const maxBytes = 3 * options.maxMessageBytes + 1_024;
  const isAsked = (event: HookEvent) => options.events.includes(event);
  let waitingCount = 0;
  let isDown = false;

  /** The log has one line when the backend goes and one when it is back, however many ask. */
  function unavailable(why: string): HookUnavailable {
    if (!isDown) log.warn(`The hooks' backend is down: ${why}`, { event: "hook_down" });
    isDown = true;
    return new HookUnavailable(why);
  }

  async function send(body: string, signal: AbortSignal): Promise<[status: number, text: string]> {
    const time = Math.floor(clock.now() / 1_000);
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (secret) {
      const hmac = createHmac("sha256", secret).update(`${time}.${body}`).digest("hex");
      headers["parley-signature"] = `t=${time},v1=${hmac}`;
    }
    const init = { method: "POST", body, headers, signal, redirect: "manual" } as const;
    const response = await fetch(url, init);
    if (response.status >= 500) {
      await response.body?.cancel();
      throw new Error(`it answered ${response.status}`);
    }
    const tooLong = new AnswerError(`the backend answered over ${maxBytes} bytes`);
    const text = await readText(response.body, maxBytes, tooLong);
    if (isDown) log.info("The hooks' backend answers again", { event: "hook_up" });
    isDown = false;
    return [response.status, text];
  }

  /** Asks the backend; of what it answers `key` counts, the rest is ignored. */
  async function ask<K extends string>(
    event: HookEvent,
    key: K,
    { room, name, user, via }: From,
    content: object = {},
  ): Promise<Record<K, unknown> | Refused | undefined> {
    if (waitingCount >= options.maxWaiting) throw unavailable(`${waitingCount} wait for it`);
    const body = encodeJson({ event, room, name, user, ...content, via });
    const timeout = new AbortController();
    const cancel = clock.after(timeoutMs, () => timeout.abort(`no answer in ${timeoutMs} ms`));
    waitingCount++;
    try {
      const answer = readAnswer(...await send(body, timeout.signal));
      if (answer instanceof Refused) return answer;
      return Object.hasOwn(answer, key) ? answer as Record<K, unknown> : undefined;
    } catch (error) {
      if (error instanceof AnswerError) throw error;
      // The URL may have a password.
      const cause = error instanceof Error && error.cause || error;
      throw unavailable(String(cause).replaceAll(url, "its URL"));
    } finally {
      cancel();
      waitingCount--;
    }
  }

  const hooks: Hooks = {};
  if (isAsked("join")) {
    hooks.onJoin = async (from) => {
      const answer = await ask("join", "name", from);
      return answer instanceof Refused ? answer : answer?.name as string | undefined;
    };
  }
  if (isAsked("chat") || isAsked("note")) {
    hooks.onMessage = (from) =>
      isAsked(from.kind) ? ask(from.kind, "message", from, { message: from.message }) : undefined;
  }
  if (isAsked("set")) {
    hooks.onSet = (from) => ask("set", "value", from, { key: from.key, value: from.value });
  }
  return hooks;
}

/** An answer outside the grammar; the log needs no stack of it. */
class AnswerError extends Error {
  override readonly stack = undefined;
}

/** What a backend answered: a refusal, or values that replace others. @throws {AnswerError} */
function readAnswer(status: number, text: string): Refused | Record<string, unknown> {
  let answer: unknown;
  try {
    answer = parseJson(text);
  } catch {
    // It is told below.
  }
  if (isObject(answer)) {
    if (status === 200) return answer;
    if (status === 403 && typeof answer.message === "string") return refuse(answer.message);
  }
  throw new AnswerError(`the backend answered ${status} with ${text.slice(0, 100) || "no body"}`);
}

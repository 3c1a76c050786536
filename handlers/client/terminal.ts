/** `deno task chat ws://host/chat/room`: a room in a terminal, through the same client as the page. @module */
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "@std/cli/parse-args";
import { connect } from "./client.js";

const HELP = `Talk in a Parley room from a terminal.

  deno task chat [flags] [ws://host/chat/room]     default: ws://localhost:8000/chat/lobby

  --name NAME     your name (default: the user's name)
  --token TOKEN   a token, where the server asks for one
  --history N     messages to begin with (default: 20)
  --help

Each line is a message. /name NAME takes another name, /members lists who is here, /quit leaves.`;

const TRYING = "trying again; what you write is kept and sent later";

const STATE_TEXTS = {
  connecting: "connecting",
  open: "connected",
  reconnecting: `connection lost, ${TRYING}`,
  closed: "disconnected",
};

/** How long a server may stay silent before the user is told, and what was piped in may wait for it. */
const PATIENCE_MS = 1_000;
const POLL_MS = 100;

/** ANSI colours that can be read on light and dark. */
const COLOURS = [31, 32, 33, 34, 35, 36];

/** A name in a colour of its own, where the terminal has colours. */
function inColour(name: string): string {
  if (Deno.noColor || !Deno.stdout.isTerminal()) return name;
  const sum = Array.from(name).reduce((sum, letter) => sum + letter.codePointAt(0)!, 0);
  return `\x1b[1;${COLOURS[sum % COLOURS.length]}m${name}\x1b[0m`;
}

/** A message as text: shows what could move the cursor or turn the text around, indents further lines. */
export function printable(message: unknown): string {
  const text = typeof message === "string" ? message : JSON.stringify(message);
  return escaped(text.replace(/\n/g, "\n      "), /(?!\n)[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu);
}

/** A name as text: shows what would be invisible, so that no two names look the same. */
export function printableName(name: string): string {
  return escaped(name, /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]|(?! )\p{Z}|^ | $|\u2800/gu);
}

function escaped(text: string, hidden: RegExp): string {
  return text.replace(hidden, (letter) => `\\x${letter.codePointAt(0)!.toString(16)}`);
}

/** Talks in a room until the input ends; returns whether all lines were sent. */
async function talk(url: string, flags: Record<string, string | undefined>): Promise<boolean> {
  const name = flags.name ?? Deno.env.get("USER") ?? "Anonymous";
  const history = Number(flags.history ?? 20);
  if (!Number.isInteger(history) || history < 0) {
    throw new TypeError(`Cannot use --history: it is a whole number, is ${flags.history}`);
  }
  const input = createInterface({ input: process.stdin });
  const client = connect(url, {
    name,
    token: flags.token,
    history,
    onMessage: ({ time, sender, message }) => {
      const at = new Date(time).toTimeString().slice(0, 5);
      console.log(`${at} ${inColour(printableName(sender))}: ${printable(message)}`);
    },
    onStatus: ({ message, name, was, members }) => {
      const shown = printableName(name);
      const text = was === undefined
        ? message.replace(name, () => shown)
        : `${printableName(was)} is now ${shown}.`;
      console.log(`* ${printable(text)} (${members} here)`);
    },
    onGap: () => console.log("* Some messages may be missing here."),
    onConnection: (state) => console.error(`* ${STATE_TEXTS[state]}`),
    onError: ({ message }) => {
      console.error(`* ${printable(message)}`);
      if (client.connection === "closed") input.close();
    },
  });
  console.error(`* connecting to ${url}`);
  const silence = setTimeout(() => {
    isSilent = client.connection === "connecting";
    if (!isSilent) return;
    console.error(`* no answer from ${url}, ${TRYING}`);
    waiting.forEach(showWaiting);
  }, PATIENCE_MS);

  let areAllSent = true, isSilent = false;
  const waiting = new Map<Promise<void>, string>();
  const showWaiting = (line: string) => console.error(`* waits to be sent: ${printable(line)}`);
  const send = (line: string) => {
    const { connection } = client;
    if (connection === "reconnecting" || connection === "connecting" && isSilent) showWaiting(line);
    const done: Promise<void> = client.send(line).then(() => {}, ({ message }) => {
      areAllSent = false;
      console.error(`* not sent: ${printable(line)} (${message})`);
    }).finally(() => waiting.delete(done));
    waiting.set(done, line);
  };
  const showMembers = () =>
    client.members().then(
      ({ members, count }) =>
        console.log(`* ${count} here: ${members.map(printableName).join(", ")}`),
      ({ message }) => console.error(`* ${message}`),
    );

  let isQuitting = false;
  for await (const line of input) {
    isQuitting = line === "/quit";
    if (isQuitting) break;
    if (line.startsWith("/name ")) client.join(line.slice("/name ".length).trim());
    else if (line === "/members") showMembers();
    else if (line !== "") send(line);
  }
  const isRefused = client.connection === "closed";
  // What was piped in is sent before the end, if there is a connection, or soon.
  let patience = isQuitting ? 0 : PATIENCE_MS;
  while (waiting.size > 0 && patience > 0) {
    await Promise.race([delay(POLL_MS), Promise.all(waiting.keys())]);
    if (client.connection !== "open") patience -= POLL_MS;
  }
  clearTimeout(silence);
  client.close();
  await Promise.all(waiting.keys());
  return areAllSent && !isRefused;
}

if (import.meta.main) {
  try {
    const flags = parseArgs(Deno.args, {
      string: ["name", "token", "history"],
      boolean: ["help"],
      alias: { h: "help" },
      unknown: (argument) => {
        if (argument.startsWith("-")) throw new TypeError(`Cannot understand ${argument}`);
      },
    });
    if (flags.help) console.log(HELP);
    else {
      const [url = "ws://localhost:8000/chat/lobby"] = flags._ as unknown as string[];
      Deno.exit(await talk(url, flags) ? 0 : 1);
    }
  } catch (error) {
    console.error(`${(error as Error).message}: --help tells more`);
    Deno.exit(1);
  }
}

/**
 * `deno task chat ws://host/chat/room`: a room in a terminal, through the same client as the page.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { connect } from "./client.js";

const HELP = `Talk in a Parley room from a terminal.

  deno task chat [flags] [ws://host/chat/room]     default: ws://localhost:8000/chat/lobby

  --name NAME     your name (default: the user's name)
  --token TOKEN   a token, where the server asks for one
  --history N     messages to begin with (default: 20)
  --help

Each line is a message. /name NAME takes another name, /members lists who is here, /quit leaves.`;

/** ANSI colours that can be read on light and dark. */
const COLOURS = [31, 32, 33, 34, 35, 36];

/** A name in a colour of its own, where the terminal has colours. */
function inColour(name: string): string {
  if (Deno.noColor || !Deno.stdout.isTerminal()) return name;
  const sum = Array.from(name).reduce((sum, letter) => sum + letter.codePointAt(0)!, 0);
  return `\x1b[1;${COLOURS[sum % COLOURS.length]}m${name}\x1b[0m`;
}

/** A message as text: what could move the cursor is shown, not done; further lines are set in. */
function printable(message: unknown): string {
  const text = typeof message === "string" ? message : JSON.stringify(message);
  return text.replace(/\n/g, "\n      ")
    .replace(/(?!\n)\p{Cc}/gu, (letter) => `\\x${letter.charCodeAt(0).toString(16)}`);
}

async function talk(url: string, flags: Record<string, string | undefined>): Promise<void> {
  const name = flags.name ?? Deno.env.get("USER") ?? "Anonymous";
  const history = Number(flags.history ?? 20);
  if (!Number.isInteger(history) || history < 0) {
    throw new TypeError(`Cannot use --history: it is a whole number, is ${flags.history}`);
  }
  const client = connect(url, {
    name,
    token: flags.token,
    history,
    onMessage: ({ time, sender, message }) => {
      const at = new Date(time).toTimeString().slice(0, 5);
      console.log(`${at} ${inColour(printable(sender))}: ${printable(message)}`);
    },
    onStatus: ({ message, members }) => console.log(`* ${printable(message)} (${members} here)`),
    onGap: () => console.log("* Some messages may be missing here."),
    onState: (state) => console.error(`* ${state === "open" ? "connected" : state}`),
    onError: ({ message }) => {
      console.error(`* ${printable(message)}`);
      if (client.state === "closed") Deno.exit(1);
    },
  });
  console.error(`* connecting to ${url}`);
  const asked: Promise<void>[] = [];
  for await (const line of readLines()) {
    if (line === "/quit") break;
    if (line.startsWith("/name ")) client.join(line.slice("/name ".length).trim());
    else if (line === "/members") {
      asked.push(
        client.members().then(({ members, count }) => {
          console.log(`* ${count} here: ${members.map(printable).join(", ")}`);
        }, ({ message }) => console.error(`* ${message}`)),
      );
    } else if (line !== "") {
      asked.push(
        client.send(line).then(() => {}, ({ message }) => {
          console.error(`* Not sent: ${message}`);
        }),
      );
    }
  }
  // What was piped in is sent before the end.
  if (client.state !== "reconnecting") await Promise.all(asked);
  client.close();
}

/** The lines of the standard input. */
async function* readLines(): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop() ?? "";
    yield* lines;
  }
  yield rest;
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
    else await talk((flags._ as unknown as string[])[0] ?? "ws://localhost:8000/chat/lobby", flags);
  } catch (error) {
    console.error(`${(error as Error).message}: --help tells more`);
    Deno.exit(1);
  }
}

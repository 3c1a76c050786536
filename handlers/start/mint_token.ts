/** `deno task token`: makes a token of AUTH_SECRET and prints it. */
import { parseArgs } from "@std/cli/parse-args";
import { secretBytes } from "../access/token.ts";
import { SettingError } from "./setting_error.ts";
import { runCommand } from "./process.ts";

const HELP = `Makes a token of AUTH_SECRET and prints it.

  deno task token [flags]

  AUTH_SECRET=... deno task token --sub ann --rooms 'ops,user:*' --expires 1h

  --sub ID           the user
  --name NAME        the only name to join with (the user's id)
  --rooms LIST       rooms to hear, with commas between; prefix* (all)
  --speak LIST       rooms to speak in (as --rooms)
  --listen LIST      rooms that a socket hears from the start
  --publish          may publish over HTTP
  --admin            may read /metrics and the server's own rooms
  --expires TIME     90s, 15m, 12h or 30d from now (1h)
  --iss, --aud TEXT  what AUTH_ISSUER and AUTH_AUDIENCE want`;

const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** How long a time such as `15m` is. @throws {SettingError} if it is none */
function secondsOf(time: string): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(time) ?? [];
  if (!unit) {
    throw new SettingError(`Cannot use --expires: must be like 90s, 15m, 12h or 30d, is "${time}"`);
  }
  return Number(count) * SECONDS[unit as keyof typeof SECONDS];
}

/**
 * Makes a token of flags (`--help` lists them) and AUTH_SECRET; `now` is in Unix ms.
 * @throws {SettingError} if a flag cannot be used
 * @throws {OptionError} if the secret cannot be used
 */
export async function mintToken(args: string[], secret: string, now: number): Promise<string> {
  const flags = parseArgs(args, {
    string: ["sub", "name", "rooms", "speak", "listen", "expires", "iss", "aud"],
    boolean: ["publish", "admin"],
    default: { expires: "1h" },
    unknown(flag) {
      throw new SettingError(`Cannot understand ${JSON.stringify(flag)}: --help lists the flags`);
    },
  });
  const { SignJWT } = await import("jose");
  for (const [flag, value] of Object.entries(flags)) {
    // `--sub "$NAME"` of a name that is not set would be a token of nobody.
    if (value === "") throw new SettingError(`Cannot use --${flag}: its value is missing`);
  }
  const list = (text: unknown) =>
    text === undefined ? undefined : String(text).split(",").map((rule) => rule.trim());
  const claims: Record<string, unknown> = {
    sub: flags.sub,
    name: flags.name,
    rooms: list(flags.rooms),
    speak: list(flags.speak),
    listen: list(flags.listen),
    publish: flags.publish || undefined,
    admin: flags.admin || undefined,
    iss: flags.iss,
    aud: flags.aud,
    iat: Math.floor(now / 1_000),
    exp: Math.floor(now / 1_000) + secondsOf(String(flags.expires)),
  };
  return await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(secretBytes(secret));
}

if (import.meta.main) {
  await runCommand(async () => {
    const secret = Deno.env.get("AUTH_SECRET") ?? "";
    if (Deno.args.some((arg) => arg === "--help" || arg === "-h")) console.log(HELP);
    else console.log(await mintToken(Deno.args, secret, Date.now()));
  });
}

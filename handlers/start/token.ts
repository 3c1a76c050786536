/**
 * `deno task token`: prints a token, to try access out or for a script.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { jwtAuthorizer, secretBytes } from "../access/token.ts";
import { SettingError } from "../util/setting_error.ts";

const HELP = `Prints a token that is signed with AUTH_SECRET.

  deno task token [flags]

  deno task token --sub ann --rooms 'ops,user:*' --expires 1h

  --sub USER       the user
  --name NAME      the name to speak under (the user)
  --rooms A,B      rooms that may be heard, prefix* for several (all)
  --speak A,B      rooms that may be spoken in (those that may be heard)
  --listen A,B     rooms that are heard from the start (none)
  --publish        may publish over HTTP
  --admin          may see the figures and the server's own rooms
  --expires TIME   for how long: 90s, 15m, 1h, 7d (1h)
  --help

AUTH_ISSUER and AUTH_AUDIENCE become its iss and aud.`;

const LISTS = ["rooms", "speak", "listen"] as const;

/**
 * Makes the token that flags ask for.
 *
 * @param env gives a variable's text
 * @throws {SettingError} if a flag or AUTH_SECRET cannot be used
 */
export async function mintToken(
  args: string[],
  env: (name: string) => string | undefined,
): Promise<string> {
  const flags = parseArgs(args, {
    string: ["sub", "name", "expires", ...LISTS],
    boolean: ["publish", "admin"],
    unknown(argument) {
      throw new SettingError(
        `Cannot understand ${JSON.stringify(argument)}: --help lists the flags`,
      );
    },
  });
  const { expires = "1h" } = flags;
  const secret = env("AUTH_SECRET");
  if (!secret) throw new SettingError("Cannot make a token: AUTH_SECRET is not set");
  if (!/^\d+[smhd]$/.test(expires)) {
    throw new SettingError(`Cannot use --expires: must be like 15m or 1h, is ${expires}`);
  }
  const issuer = env("AUTH_ISSUER") || undefined;
  const audience = env("AUTH_AUDIENCE") || undefined;
  const authorize = jwtAuthorizer({ secret, issuer, audience });
  const { SignJWT } = await import("jose");
  const claims: Record<string, unknown> = { iss: issuer, aud: audience };
  for (const claim of ["sub", "name"] as const) claims[claim] = flags[claim];
  for (const claim of LISTS) claims[claim] = flags[claim]?.split(",").map((room) => room.trim());
  if (flags.publish) claims.publish = true;
  if (flags.admin) claims.admin = true;
  const token = await new SignJWT(claims)
    .setProtectedHeader({ alg: "HS256" })
    .setIssuedAt()
    .setExpirationTime(expires)
    .sign(secretBytes(secret));
  // A token that the server refuses helps nobody: whatever is wrong with a claim is told here.
  await authorize(
    new Request("http://localhost", { headers: { authorization: `Bearer ${token}` } }),
  );
  return token;
}

if (import.meta.main) {
  if (Deno.args.includes("--help")) {
    console.log(HELP);
  } else {
    try {
      console.log(await mintToken(Deno.args, (name) => Deno.env.get(name)));
    } catch (error) {
      console.error((error as Error).message);
      Deno.exit(1);
    }
  }
}

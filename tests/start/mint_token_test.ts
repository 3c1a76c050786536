import { assertEquals, assertRejects } from "@std/assert";
import { jwtAuthorizer } from "../../handlers/access/token.ts";
import { mintToken } from "../../handlers/start/mint_token.ts";
import { SettingError } from "../../handlers/start/setting_error.ts";
import { OptionError } from "../../handlers/util/option_error.ts";

const SECRET = "a secret of thirty-two bytes or more";

/** What a server that has the secret reads in a token. */
async function read(token: string, secret = SECRET) {
  const headers = { authorization: `Bearer ${token}` };
  return await jwtAuthorizer({ secret })(new Request("http://parley.test/chat", { headers }));
}

Deno.test("mintToken() makes a token that the server takes, with the rights that were asked for", async () => {
  const now = Date.now();
  const flags = "--sub ann --rooms ops,user:* --speak ops --listen news --publish --expires 15m";
  const grants = await read(await mintToken(flags.split(" "), SECRET, now));
  assertEquals(grants, {
    user: "ann",
    name: "ann",
    rooms: ["ops", "user:*"],
    speak: ["ops"],
    listen: ["news"],
    publish: true,
    admin: false,
    expiresAt: (Math.floor(now / 1_000) + 900) * 1_000,
  });
});

Deno.test("mintToken() reads a secret as the server does", async () => {
  const secret = `base64:${new Uint8Array(32).fill(7).toBase64()}`;
  assertEquals(
    (await read(await mintToken(["--sub", "bo"], secret, Date.now()), secret)).user,
    "bo",
  );
  await assertRejects(() => mintToken([], "short", 0), OptionError, "at least 32 are needed");
});

Deno.test("mintToken() refuses what it does not understand", async () => {
  await assertRejects(() => mintToken(["--sup", "x"], SECRET, 0), SettingError, '"--sup"');
  for (const time of ["1", "1y", "-1h", "1.5h", ""]) {
    const args = [`--expires=${time}`];
    await assertRejects(() => mintToken(args, SECRET, 0), SettingError, "must be like 90s");
  }
});

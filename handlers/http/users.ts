/** `DELETE /users/{user}`: ends a user's visits. `handlers/README.md`, HTTP. */
import type { Handler } from "../app.ts";
import { areConditions } from "../protocol/state.ts";
import { check, granted } from "./error.ts";

/** Ends a user's sockets and streams, and refuses the user for `?seconds=`. */
export const disconnectUser: Handler = async ({ url, key: user }, { registry }) => {
  const seconds = Number(url.searchParams.get("seconds") ?? 0);
  check(!!user, "bad_message", "Invalid user.");
  check(isBanTime(seconds), "bad_message", "seconds must be whole seconds.");
  granted(await registry.bans.disconnect(user, seconds));
  return new Response(null, { status: 202 });
};

/** Whether a ban can last so many seconds; 0 only ends what is open. */
export function isBanTime(seconds: number): boolean {
  return seconds === 0 || areConditions({ ttl: seconds });
}

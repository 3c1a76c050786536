/** `DELETE /users/{user}`: ends a user's visits. `handlers/README.md`, HTTP. */
import type { App, Handler } from "../app.ts";
import { areConditions } from "../protocol/state.ts";
import { check, granted } from "./error.ts";

/** Makes the handler that ends a user's sockets and streams, and refuses the user for `?seconds=`. */
export function disconnectUser({ registry }: App): Handler {
  return async ({ url, key: user }) => {
    const seconds = Number(url.searchParams.get("seconds") ?? 0);
    check(!!user, "bad_message", "Invalid user.");
    check(isBanTime(seconds), "bad_message", "seconds must be whole seconds.");
    granted(await registry.bans.disconnect(user, seconds));
    return new Response(null, { status: 202 });
  };
}

/** Whether a ban can last so long; 0 only ends what is open. */
export function isBanTime(seconds: number): boolean {
  return seconds === 0 || areConditions({ ttl: seconds });
}

/** `DELETE /users/{user}`: ends a user's visits. `handlers/README.md`, HTTP. */
import type { App, Handler } from "../app.ts";
import { HttpError } from "../protocol/http_error.ts";
import { areConditions } from "../protocol/state.ts";
import { granted } from "./error.ts";

/** Makes the handler that ends a user's sockets and streams, and refuses the user for `?seconds=`. */
export function disconnectUser({ registry }: App): Handler {
  return async ({ url, key: user }) => {
    const seconds = Number(url.searchParams.get("seconds") ?? 0);
    if (!user) throw new HttpError(400, "bad_message", "Invalid user.");
    if (!isBanTime(seconds)) {
      throw new HttpError(400, "bad_message", "seconds must be whole seconds.");
    }
    granted(await registry.bans.disconnect(user, seconds));
    return new Response(null, { status: 202 });
  };
}

/** Whether a ban can last so long; 0: it only ends what is open. */
export function isBanTime(seconds: number): boolean {
  return seconds === 0 || areConditions({ ttl: seconds });
}

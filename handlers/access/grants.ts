/** What a visitor may do: as an `authorize` says it, and as the server asks it. */
import { isPersonName, isRoomName, isServerRoom } from "../protocol/parse.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";

/** What a visitor may do. Rooms are names and `prefix*`; `{sub}` in them stands for the user. */
export interface Grants {
  /** Whom the visitor is: limits, idempotency keys and members count by it. */
  user?: string;
  /** The only name to join with; any if missing. */
  name?: string;
  /** Unix ms at which the visit ends. */
  expiresAt?: number;
  /** May read `/metrics` and the server's own rooms, and end other users' visits. */
  admin?: boolean;
  /** May publish over HTTP. */
  publish?: boolean;
  /** Rooms to subscribe to; all if missing. */
  rooms?: string[];
  /** Rooms among them to speak in; all of {@link rooms} if missing. */
  speak?: string[];
  /** Rooms that a socket is subscribed to from the start, in addition to {@link rooms}. */
  listen?: string[];
}

/**
 * Decides who may come in: asked before an upgrade or a route that is not public, and again when a
 * socket sends a fresh token (with the upgrade's URL and headers, `Authorization` replaced).
 * @returns what the visitor may do; a Response refuses
 */
export interface Authorize {
  (request: Request, room?: string): MaybePromise<Grants | Response>;
  /** What it counts, for `/metrics`. */
  readonly figures?: { keyFailures: number };
}

/** {@link Grants} that were checked, as questions. */
export interface Rights extends Pick<Grants, "user" | "name" | "expiresAt"> {
  /** Whom idempotency keys count by: the user, else the name; empty for a stranger. */
  subject: string;
  /** Rooms to subscribe to from the start. */
  listen: string[];
  maySubscribe(room: string): boolean;
  maySpeak(room: string): boolean;
  mayPublish: boolean;
  isAdmin: boolean;
}

/** What everybody may do where access is open. */
export const OPEN_RIGHTS: Rights = {
  subject: "",
  listen: [],
  maySubscribe: () => true,
  maySpeak: () => true,
  mayPublish: true,
  isAdmin: true,
};

/**
 * Reads {@link Grants}.
 * @throws {TypeError} if they are no object, or one of them is of the wrong kind
 */
export function rightsOf(grants: Grants): Rights {
  // Also `true`, an array or an Error has no `rooms`, which would mean all.
  const kind = Object.prototype.toString.call(grants);
  check(kind === "[object Object]", kind, "Grants");
  const { name, expiresAt, admin, publish, listen = [] } = grants;
  check(["string", "undefined"].includes(typeof grants.user), grants.user, "user");
  check(name === undefined || isPersonName(name), name, "name");
  check(
    expiresAt === undefined || Number(expiresAt) === expiresAt,
    expiresAt,
    "time",
  );
  // A user without a name cannot be sent away.
  const user = grants.user || undefined;
  const isAdmin = admin === true;
  // A user whose name is no room's has none.
  const mine = new Set(listen.flatMap((rule) => withUser(rule, user)).filter(isRoomName));
  const isListed = roomRules(grants.rooms, user);
  const isSpoken = roomRules(grants.speak, user);
  return {
    subject: user ?? name ?? "",
    user,
    name,
    expiresAt,
    listen: [...mine],
    maySubscribe: (room) => isServerRoom(room) ? isAdmin : mine.has(room) || isListed(room),
    maySpeak: (room) => isListed(room) && isSpoken(room),
    mayPublish: publish === true,
    isAdmin,
  };
}

function check(isGood: boolean, value: unknown, what: string): void {
  if (!isGood) throw new TypeError(`Cannot use grants: ${JSON.stringify(value)} is no ${what}`);
}

/** Makes the function that tells whether rules name a room; `["*"]`, all, if they are missing. */
function roomRules(rules = ["*"], user?: string): (room: string) => boolean {
  const names = new Set<string>();
  const prefixes: string[] = [];
  // The last letter of the text `user:*` would be a rule that names all rooms.
  check(Array.isArray(rules), rules, "list of rooms");
  for (const rule of rules) {
    // The star is looked for before the user is filled in, who may be called `*`.
    const isPrefix = rule.endsWith("*");
    for (const room of withUser(isPrefix ? rule.slice(0, -1) : rule, user)) {
      if (isPrefix) prefixes.push(room);
      else names.add(room);
    }
  }
  return (room) => names.has(room) || prefixes.some((prefix) => room.startsWith(prefix));
}

/** Rules with `{sub}` that name no room, because there is no user or the user's name does not fit. */
export function unfitRules({ user, rooms = [], speak = [], listen = [] }: Grants): string[] {
  return [...rooms, ...speak, ...listen].filter((rule) =>
    rule.includes("{sub}") && !withUser(rule.replace(/\*$/, ""), user || undefined).some(isRoomName)
  );
}

/** A rule with the user in it; none where it needs a user and there is none. */
function withUser(rule: string, user: string | undefined): string[] {
  if (!rule.includes("{sub}")) return [rule];
  return user === undefined ? [] : [rule.replaceAll("{sub}", () => user)];
}

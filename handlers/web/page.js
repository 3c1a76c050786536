// @ts-check
/// <reference lib="dom" />
/** What both pages use: elements, the token, the rooms. @module */

/** The token in the part of the page's address that no browser sends. */
export const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
addEventListener("hashchange", () => location.reload());

/** An element of the page, which need not be an input. @param {string} id */
export const byId = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Partial<HTMLElementTagNameMap[Tag]>} [properties]
 * @param {(Node | string)[]} children
 */
export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The chat page of a room. @param {string} room */
export function addressOf(room) {
  return `./?${new URLSearchParams({ room })}${location.hash}`;
}

/** @param {string} room */
export function linkTo(room) {
  return element("a", { href: addressOf(room) }, `#${room}`);
}

/** @returns {Promise<import("../protocol/room_event.ts").RoomSummary[] | undefined>} if the server tells */
export async function listRooms() {
  const headers = token ? { authorization: `Bearer ${token}` } : undefined;
  const response = await fetch("rooms", { headers }).catch(() => undefined);
  return response?.ok ? (await response.json()).rooms : undefined;
}

/** Scripts that change and read who has joined a room. */
import { OPEN } from "./room.ts";
import { STATE } from "./state.ts";

/** The most names that `members` answers with. */
export const MAX_NAMES = 1_000;
/** How long events wait for a node that publishes them, in ms: a week. */
const OUTBOX_MS = 604_800_000;

/**
 * For the scripts that change who has joined: notifies the hosts, and writes down what `_events` is to
 * hear. Their last ARGV is EVENTS. The count of a room's events starts with the time, so that a room that
 * comes back repeats no number. `clear` removes a node's members, but for those of `others`; it stops
 * behind `limit`, and returns whether it is done, and how many it removed.
 */
export const PRESENCE = `
${STATE}
local function say(event, name)
  if not string.find(ARGV[#ARGV], event, 1, true) then return end
  call('HSETNX', head, 'n', now)
  local entry = call('HINCRBY', head, 'n', 1) .. ' ' .. event .. ' '
  call('RPUSH', head .. ':events', entry .. call('HLEN', members) .. ' ' .. name)
  call('PEXPIRE', head .. ':events', ${OUTBOX_MS})
end
local function notify(what)
  version = call('HINCRBY', head, 'version', 1)
  local place = epoch .. ' ' .. version .. ' ' .. call('HLEN', members)
  call('SPUBLISH', head, 's' .. place .. ' ' .. what)
end
local function add(field, name)
  local was = call('HGET', members, field)
  call('HSET', members, field, name)
  notify('j' .. name .. (was or ''))
  if was then return end
  if call('HLEN', members) == 1 then say('occupied', '') end
  say('join', name)
end
local function remove(field)
  local name = call('HGET', members, field)
  if name then
    call('HDEL', members, field)
    notify('l' .. name)
    say('leave', name)
    if call('HLEN', members) == 0 then say('vacated', '') end
  end
  unbind(field .. ' ')
end
local function clear(node, others, limit)
  local cursor, count = '0', 0
  repeat
    local page = call('HSCAN', members, cursor, 'MATCH', node .. '/*', 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      if not others[page[2][i]] then
        remove(page[2][i])
        count = count + 1
      end
    end
  until cursor == '0' or count >= limit
  if cursor == '0' then unbind(node .. '/', others) end
  return cursor == '0', count
end
local function stay(node, listeners)
  if not listeners then
    listeners = string.match(call('HGET', nodes, node) or '', ' (.*)') or '-1'
  end
  call('HSET', nodes, node, now .. ' ' .. listeners)
  keep()
end`;

/** Adds a member, or renames one. ARGV: node, member, packed name. */
export const join = `#!lua
${OPEN}
${PRESENCE}
add(ARGV[4] .. '/' .. ARGV[5], ARGV[6])
stay(ARGV[4])`;

/** Removes a member. ARGV: node, member. */
export const leave = `#!lua flags=allow-oom
${OPEN}
${PRESENCE}
remove(ARGV[4] .. '/' .. ARGV[5])`;

/** Who has joined. Answer: their number, then packed names. */
export const members = `#!lua flags=no-writes,allow-oom
local answer, cursor = { redis.call('HLEN', KEYS[3]) }, '0'
repeat
  local page = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', ${MAX_NAMES})
  cursor = page[1]
  for i = 2, #page[2], 2 do answer[#answer + 1] = page[2][i] end
until cursor == '0' or #answer > ${MAX_NAMES}
return answer`;

/**
 * Deletes what was published of a room's outbox, and reads on. ARGV: the number up to which it was.
 * Answer: the next entries.
 */
export const outbox = `#!lua flags=allow-oom
local list = KEYS[1] .. ':events'
local first = redis.call('LINDEX', list, 0)
while first and tonumber(string.match(first, '^%d+')) <= tonumber(ARGV[4]) do
  redis.call('LPOP', list)
  first = redis.call('LINDEX', list, 0)
end
return redis.call('LRANGE', list, 0, 99)`;

/** Scripts that change and read who has joined a room. */
import { MAX_LISTED } from "../../presence.ts";
import { OPEN } from "./room.ts";
import { STATE } from "./state.ts";

/** How long events wait for a node that publishes them, in ms: a week. */
const OUTBOX_MS = 604_800_000;

/** How many people a hash of members has. */
export const COUNT = `
local function countPeople(members)
  return redis.call('HLEN', members) - (redis.call('HGET', members, 'more') or 0)
end`;

/**
 * For the scripts that change who has joined: notifies the hosts, and writes down what `_events` is to
 * hear. Their last ARGV is EVENTS. The count of a room's events starts with the time, so that a room that
 * comes back repeats no number. `clear` removes a node's members, except `others`; it stops
 * beyond `limit`, and returns whether it is done, and how many it removed.
 */
export const PRESENCE = `
${STATE}
${COUNT}
local function split(who)
  local bytes, rest = string.match(who, '^=(%d+) (.*)$')
  if not bytes then return who end
  return string.sub(rest, bytes + 1), string.sub(rest, 1, bytes)
end
local function addSockets(user, name, step)
  local field = '=' .. user
  local sockets, was = string.match(call('HGET', members, field) or '', '^(%d+) (.*)$')
  sockets = (sockets or 0) + step
  if sockets > 0 then call('HSET', members, field, sockets .. ' ' .. (name or was))
  else call('HDEL', members, field) end
  -- The field itself is one more.
  local more = call('HINCRBY', members, 'more', step)
  if more == 1 and step > 0 then call('HINCRBY', members, 'more', 1) end
  if more == 1 and step < 0 then call('HDEL', members, 'more') end
  return was, sockets
end
local function say(event, name)
  if not string.find(ARGV[#ARGV], event, 1, true) then return end
  call('HSETNX', head, 'n', now)
  local entry = call('HINCRBY', head, 'n', 1) .. ' ' .. event .. ' '
  call('RPUSH', head .. ':events', entry .. countPeople(members) .. ' ' .. name)
  call('PEXPIRE', head .. ':events', ${OUTBOX_MS})
end
local function notify(what)
  version = call('HINCRBY', head, 'version', 1)
  local place = epoch .. ' ' .. version .. ' ' .. countPeople(members)
  call('SPUBLISH', head, 's' .. place .. ' ' .. what)
end
local function add(field, who)
  local name, user = split(who)
  local before = call('HGET', members, field)
  local was, to = before, ''
  call('HSET', members, field, who)
  if user then
    was = addSockets(user, name, before and 0 or 1)
    local member = string.match(field, '/(.*)$')
    if not before and was == name then was, to = nil, #member .. ' ' .. member end
  end
  notify('j' .. name .. (was or '0 ') .. (user or '0 ') .. to)
  if was or to ~= '' then return end
  if countPeople(members) == 1 then say('occupied', '') end
  say('join', name .. (user or ''))
end
local function remove(field)
  local who = call('HGET', members, field)
  if who then
    local name, user = split(who)
    local sockets, last = 0, name
    call('HDEL', members, field)
    if user then last, sockets = addSockets(user, nil, -1) end
    if sockets <= 0 then
      name = last or name
      notify('l' .. name .. '0 ' .. (user or ''))
      say('leave', name .. (user or ''))
      if countPeople(members) == 0 then say('vacated', '') end
    end
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

/** Adds a member, or renames one. ARGV: node, member, its value in the hash. */
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

/** Who has joined. Answer: how many people, then `{sockets} {name}{user}` of each, packed. */
export const members = `#!lua flags=no-writes,allow-oom
${COUNT}
local answer, cursor = { countPeople(KEYS[3]) }, '0'
repeat
  local page = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', ${MAX_LISTED})
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local field, value = page[2][i], page[2][i + 1]
    if string.sub(field, 1, 1) == '=' then
      answer[#answer + 1] = value .. string.sub(field, 2)
    elseif field ~= 'more' and string.sub(value, 1, 1) ~= '=' then
      answer[#answer + 1] = '1 ' .. value
    end
  end
until cursor == '0' or #answer > ${MAX_LISTED}
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

/** Scripts that change and read a room's state. */
import { MAX_REMOVALS } from "../../state_map.ts";
import { IDS } from "./messages.ts";
import { OPEN } from "./room.ts";

/**
 * For the scripts that change or read the state. `change` numbers a change and publishes it, `expire`
 * removes the keys that have ended, `unbind` those bound to members whose field begins with `prefix`,
 * except those of `others`. `changes` lists the last change of each key that changed after a rev; after
 * -1 without removals.
 */
export const STATE = `
local function find(key)
  local packed = call('HGET', state, key)
  if packed then return cmsgpack.unpack(packed) end
end
local function change(key, sender, value, endsAt, owner)
  local _, _, _, lastOwner, lastSender, lastValue = find(key)
  local isRemoved, bytes = value == 'null', 0
  if lastValue and lastValue ~= 'null' then bytes = -#key - #lastSender - #lastValue end
  if not isRemoved then bytes = bytes + #key + #sender + #value end
  rev = rev + 1
  call('HSET', head, 'rev', rev)
  call('HINCRBY', head, 'bytes', bytes)
  call('HSET', state, key, cmsgpack.pack(rev, now, endsAt, owner, sender, value))
  call('ZADD', revs, isRemoved and -rev or rev, key)
  if endsAt > 0 then call('ZADD', ends, endsAt, key) else call('ZREM', ends, key) end
  if lastOwner and lastOwner ~= '' then call('ZREM', bound, lastOwner .. ' ' .. key) end
  if owner ~= '' then call('ZADD', bound, 0, owner .. ' ' .. key) end
  if isRemoved and call('ZCOUNT', revs, '-inf', '(0') > ${MAX_REMOVALS} then
    local oldest = call('ZREVRANGEBYSCORE', revs, '(0', '-inf', 'LIMIT', 0, 1)[1]
    call('HSET', head, 'forgotten', -call('ZSCORE', revs, oldest))
    call('ZREM', revs, oldest)
    call('HDEL', state, oldest)
  end
  local left = endsAt > 0 and endsAt - now or 0
  call('SPUBLISH', head,
    'k' .. table.concat({ epoch, rev, left, now, key, sender .. value }, ' '))
end
local function drop(key)
  local _, _, _, _, sender = find(key)
  change(key, sender, 'null', 0, '')
end
local function expire()
  for _, key in ipairs(call('ZRANGE', ends, '-inf', now, 'BYSCORE')) do drop(key) end
end
local function unbind(prefix, others)
  local first, last = '[' .. prefix, '[' .. prefix .. '\\255'
  for _, place in ipairs(call('ZRANGE', bound, first, last, 'BYLEX')) do
    local field, key = string.match(place, '^(.*) (%S+)$')
    if not (others and others[field]) then drop(key) end
  end
end
local function changes(from)
  local found, ranges = {}, { { '(' .. from, '+inf' } }
  if from < 0 then ranges[1][1] = '(0' else ranges[2] = { '-inf', '(' .. -from } end
  for _, range in ipairs(ranges) do
    for _, key in ipairs(call('ZRANGE', revs, range[1], range[2], 'BYSCORE')) do
      local at, time, _, _, sender, value = find(key)
      found[#found + 1] = { key, at, time, sender .. value }
    end
  end
  return found
end
local function knows(from)
  return from <= rev and from >= tonumber(call('HGET', head, 'forgotten') or 0)
end`;

/**
 * Changes a key of the state. ARGV: those of {@link IDS}, key, packed sender, value, the rev that the
 * key must have ('' for any), ms until it ends (0: never), `{node}/{member}` to which it is bound or '',
 * MAX_KEYS, MAX_STATE_BYTES. Answer: `{epoch}:{rev}`, a refusal, or `rev_conflict:{the key's rev}`.
 */
export const set = `#!lua
${OPEN}
${IDS}
${STATE}
expire()
local key, sender, value, ms = ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[12])
local answer = seen('\\2' .. epoch, function(_, number) return number > rev end)
if answer then return answer end
local keyRev, _, _, _, lastSender, lastValue = find(key)
if lastValue == 'null' then keyRev, lastValue = nil, nil end
if ARGV[11] ~= '' and tonumber(ARGV[11]) ~= (keyRev or 0) then
  return 'rev_conflict:' .. (keyRev or 0)
end
if value ~= 'null' then
  local bytes = tonumber(call('HGET', head, 'bytes') or 0) + #key + #sender + #value
  if lastValue then bytes = bytes - #key - #lastSender - #lastValue end
  local isFull = call('ZCOUNT', revs, '(0', '+inf') >= tonumber(ARGV[14])
  if isFull and not lastValue or bytes > tonumber(ARGV[15]) then return 'too_many_keys' end
end
if value ~= 'null' or lastValue then
  change(key, sender, value, ms > 0 and now + ms or 0, value ~= 'null' and ARGV[13] or '')
end
keep()
remember(rev)
return epoch .. ':' .. rev`;

/** Reads the state. ARGV: the epoch and rev to read from. Answer: epoch, rev, that rev or -1 for all, entries. */
export const readState = `#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
${OPEN}
${STATE}
expire()
local from = tonumber(ARGV[5])
if epoch ~= ARGV[4] or not knows(from) then from = -1 end
return { epoch, rev, from, changes(from) }`;

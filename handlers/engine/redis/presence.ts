/**
 * The scripts that know of the nodes and their members: see `redis_script.ts` for the keys.
 *
 * @module
 */
import { OPEN } from "./scripts.ts";

/** How long a node's members are kept without a word from it. */
export const LEASE_MS = 15_000;
/** Messages that `sync` answers with at most. */
const MESSAGES_AT_ONCE = 50;
/** Names that `members` answers with at most. */
export const MAX_NAMES = 1_000;

/** For the scripts that change who has joined: tells the hosts, and keeps the keys. */
const TELL = `
local function tell(what)
  version = redis.call('HINCRBY', head, 'version', 1)
  redis.call('SPUBLISH', head,
    's' .. epoch .. ' ' .. version .. ' ' .. redis.call('HLEN', members) .. ' ' .. what)
end
local function set(field, name)
  local was = redis.call('HGET', members, field)
  redis.call('HSET', members, field, name)
  tell('j' .. name .. (was or ''))
end
local function drop(field)
  local name = redis.call('HGET', members, field)
  if not name then return end
  redis.call('HDEL', members, field)
  tell('l' .. name)
end
local function keep(node)
  redis.call('HSETNX', nodes, node, (now + ${LEASE_MS}) .. ' -1')
  for _, key in ipairs({ head, members, nodes }) do redis.call('PEXPIRE', key, ttl) end
end`;

/**
 * Compares a node's place with the head and answers with what it missed; holds its lease; buries
 * the members of nodes whose lease is over. Where Redis has not the number that the node was at, or
 * another message there, messages were lost: a new epoch. ARGV: the node's epoch ('' for none), seq
 * and last message's time ('' if unknown), node, its listeners (-1: not hosting), whether it may
 * bury (1 or 0). Answer: epoch, seq, members, version of the member list, whether the node's lease
 * was gone, whether there is more to bury, entries of the first messages that it missed.
 */
export const sync = `#!lua flags=allow-oom
${OPEN}
${TELL}
local at, time, node, listeners = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local from = at
if epoch == ARGV[4] then
  local last = range(at, at)
  local isOther = last[1] and time ~= '' and string.match(last[#last][2][2], '^%d+') ~= time
  if isOther then from = at - 1 end
  if isOther or seq < at then begin(true) end
end
if epoch ~= ARGV[4] then
  local start = string.find(lineage, ARGV[4] .. '=', 1, true)
  if not start then start, from = string.find(lineage, '%S+ $') or 1, math.huge end
  for base in string.gmatch(string.sub(lineage, start), '=(%d+)') do
    from = math.min(from, tonumber(base))
  end
  if from == math.huge then from = 0 end
end
local entries = {}
local first = ARGV[4] ~= '' and from < seq and
  redis.call('XRANGE', log, from + 1, seq, 'COUNT', 1)[1]
if first then
  local start = tonumber(string.match(first[1], '^%d+'))
  entries = range(start, math.min(seq, start + ${MESSAGES_AT_ONCE - 1}))
end
local wasGone = 1 - redis.call('HEXISTS', nodes, node)
redis.call('HSET', nodes, node, (now + ${LEASE_MS}) .. ' ' .. listeners)
for _, key in ipairs({ head, log, members, nodes }) do redis.call('PEXPIRE', key, ttl) end
local hasMore, buried = 0, 0
local leases = ARGV[9] == '1' and redis.call('HGETALL', nodes) or {}
for i = 1, #leases, 2 do
  if tonumber(string.match(leases[i + 1], '^%d+')) < now then
    local cursor = '0'
    repeat
      local page = redis.call('HSCAN', members, cursor, 'MATCH', leases[i] .. '/*', 'COUNT', 500)
      cursor = page[1]
      for j = 1, #page[2], 2 do drop(page[2][j]) end
      buried = buried + #page[2] / 2
    until cursor == '0' or buried >= 500
    if cursor == '0' then redis.call('HDEL', nodes, leases[i]) else hasMore = 1 end
  end
end
return { epoch, seq, redis.call('HLEN', members), version, wasGone, hasMore, entries }`;

/** Makes a member known. ARGV: node, member, packed name. */
export const join = `#!lua
${OPEN}
${TELL}
set(ARGV[4] .. '/' .. ARGV[5], ARGV[6])
keep(ARGV[4])`;

/** Ends a membership. ARGV: node, member. */
export const leave = `#!lua flags=allow-oom
${OPEN}
${TELL}
drop(ARGV[4] .. '/' .. ARGV[5])`;

/** Makes a node's members in the room these and no others. ARGV: node; member, packed name, … */
export const register = `#!lua flags=allow-oom
${OPEN}
${TELL}
local isHere = {}
for i = 5, #ARGV, 2 do
  local field = ARGV[4] .. '/' .. ARGV[i]
  isHere[field] = true
  if redis.call('HGET', members, field) ~= ARGV[i + 1] then set(field, ARGV[i + 1]) end
end
local cursor = '0'
repeat
  local page = redis.call('HSCAN', members, cursor, 'MATCH', ARGV[4] .. '/*', 'COUNT', 1000)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    if not isHere[page[2][i]] then drop(page[2][i]) end
  end
until cursor == '0'
keep(ARGV[4])
return 1`;

/** Ends a node's part in a room. ARGV: node. Answer: how many nodes are left. */
export const release = `#!lua flags=allow-oom
redis.call('HDEL', KEYS[6], ARGV[4])
return redis.call('HLEN', KEYS[6])`;

/** Who has joined: their number, then packed names. */
export const members = `#!lua flags=no-writes,allow-oom
local answer, cursor = { redis.call('HLEN', KEYS[5]) }, '0'
repeat
  local page = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', ${MAX_NAMES})
  cursor = page[1]
  for i = 2, #page[2], 2 do answer[#answer + 1] = page[2][i] end
until cursor == '0' or #answer > ${MAX_NAMES}
return answer`;

/** A room in short: seq, members, nodes that host it and their listeners, but for ARGV's node. */
export const summary = `#!lua flags=no-writes,allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local hosts, listeners = 0, 0
local leases = redis.call('HGETALL', KEYS[6])
for i = 1, #leases, 2 do
  local lease, count = string.match(leases[i + 1], '^(%d+) (-?%d+)$')
  if leases[i] ~= ARGV[4] and tonumber(lease) >= now and tonumber(count) >= 0 then
    hosts, listeners = hosts + 1, listeners + count
  end
end
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq') or 0)
return { seq, redis.call('HLEN', KEYS[5]), hosts, listeners }`;

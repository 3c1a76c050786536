/** Scripts by which nodes follow their rooms, and find what dead nodes have left. */
import { COUNT, PRESENCE } from "./presence.ts";
import { KEPT, NOW, OPEN } from "./room.ts";

/** How long a node that says nothing keeps its members, in ms. */
export const LEASE_MS = 15_000;
/** How far the clocks of two servers of a cluster may be apart, in ms. */
const CLOCK_SKEW_MS = 5_000;
/** The most messages in one answer of `sync`. */
const SYNC_MESSAGES = 50;

/**
 * A function `isDead(node, entry)`: whether a room's node had no lease when the caller last looked at
 * the leases, at Unix ms `seenAt` (0: it does not know them), though it was in the room before.
 */
const IS_DEAD = `
local call = redis.call
local function isDead(node, entry, live, seenAt)
  local since = tonumber(string.match(entry, '^%d+'))
  return since < tonumber(seenAt) - ${CLOCK_SKEW_MS} and not string.find(live, node, 1, true)
end`;

/**
 * Compares a node's position with the head and answers with what it missed; sets which members the node
 * has, and removes those of dead nodes. If Redis does not have the number that the node is at, or has
 * another message there, messages were lost: a new epoch begins. ARGV: the node's epoch ('' for none),
 * seq and last message's time ('' if unknown), node, its listeners (-1: not hosting), nodes with a lease
 * and when that was seen, the node's rev, 1 if its members follow: member, its value in the hash, … Answer:
 * numbers (seq, rev, members, version of the member list, whether the node's members are unknown, whether
 * there is more to remove, ms until a key ends, -1 if none does), epoch, entries of the first missed
 * messages, what changed of the state if that is known.
 */
export const sync = `#!lua flags=allow-oom
${OPEN}
${PRESENCE}
${IS_DEAD}
local at, time, node, known = tonumber(ARGV[5]), ARGV[6], ARGV[7], tonumber(ARGV[11])
local from = at
if epoch == ARGV[4] then
  local last = range(at, at)
  local isOther = last[1] and time ~= '' and string.match(last[#last][2][2], '^%d+') ~= time
  if isOther then from = at - 1 end
  if isOther or seq < at or rev < known then begin(true) end
end
expire()
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
  call('XRANGE', log, from + 1, seq, 'COUNT', 1)[1]
if first then
  local start = tonumber(string.match(first[1], '^%d+'))
  entries = range(start, math.min(seq, start + ${SYNC_MESSAGES - 1}))
end
local isUnknown = 1 - call('HEXISTS', nodes, node)
if ARGV[12] == '1' then
  local isHere = {}
  for i = 13, #ARGV - 1, 2 do
    local field = node .. '/' .. ARGV[i]
    isHere[field] = true
    if call('HGET', members, field) ~= ARGV[i + 1] then add(field, ARGV[i + 1]) end
  end
  clear(node, isHere, math.huge)
  isUnknown = 0
end
stay(node, ARGV[8])
local hasMore, left = 0, 500
local all = call('HGETALL', nodes)
for i = 1, #all, 2 do
  if isDead(all[i], all[i + 1], ARGV[9], ARGV[10]) then
    local isDone, count = clear(all[i], {}, left)
    left = left - count
    if isDone then call('HDEL', nodes, all[i]) else hasMore = 1 end
  end
end
local isKnown = epoch == ARGV[4] and known < rev and knows(known)
local soonest = call('ZRANGE', ends, 0, 0, 'WITHSCORES')[2]
local endsIn = soonest and soonest - now or -1
return { { seq, rev, countPeople(members), version, isUnknown, hasMore, endsIn },
  epoch, entries, isKnown and changes(known) or {} }`;

/**
 * Compares many rooms of one server, whatever their slots, and keeps those that are due. ARGV: node,
 * nodes with a lease and when that was seen; for each room: head key, the node's listeners (-1: not
 * hosting), ms to keep it (0: as it is). Answer, for each room: epoch, seq, whether it needs a sync all
 * the same, because the node is missing there, another one is dead, or the server has lost it, and rev.
 */
export const compare = `#!lua flags=allow-oom,allow-cross-slot-keys
${IS_DEAD}
local node, live, seenAt, answer = ARGV[4], ARGV[5], ARGV[6], {}
for i = 7, #ARGV, 3 do
  local head, listeners, keepMs = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local h = redis.pcall('HMGET', head, 'epoch', 'seq', 'run', 'rev')
  if h.err or h[3] ~= ARGV[1] then
    answer[#answer + 1] = { '', 0, 1, 0 }
  else
    local all, mine, isDue = call('HGETALL', head .. ':nodes'), false, 0
    for j = 1, #all, 2 do
      if all[j] == node then mine = all[j + 1]
      elseif isDead(all[j], all[j + 1], live, seenAt) then isDue = 1 end
    end
    local since, reported = string.match(mine or '', '(.*) (.*)')
    if not mine then isDue = 1
    elseif reported ~= listeners then
      call('HSET', head .. ':nodes', node, since .. ' ' .. listeners)
    end
    for _, part in ipairs(keepMs == '0' and {} or { '${KEPT.join("','")}' }) do
      call('PEXPIRE', head .. part, keepMs)
    end
    answer[#answer + 1] = { h[1], tonumber(h[2]), isDue, tonumber(h[4] or 0) }
  end
end
return answer`;

/**
 * Rooms of one server in short. ARGV: node, nodes with a lease and when that was seen, head keys. Answer,
 * for each room: seq, members, other nodes that host it, their listeners, and whether dead nodes have
 * left something there, or events wait; nothing for one that the server does not have.
 */
export const summaries = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
${IS_DEAD}
${COUNT}
local answer = {}
for i = 7, #ARGV do
  local head, hosts, listeners = ARGV[i], 0, 0
  local seq = redis.pcall('HGET', head, 'seq')
  if type(seq) == 'table' then
    answer[#answer + 1] = {}
  else
    local isLeft = redis.call('EXISTS', head .. ':events')
    local all = redis.call('HGETALL', head .. ':nodes')
    for j = 1, #all, 2 do
      local count = tonumber(string.match(all[j + 1], ' (.*)'))
      if isDead(all[j], all[j + 1], ARGV[5], ARGV[6]) then isLeft = 1
      elseif all[j] ~= ARGV[4] and count >= 0 then
        hosts, listeners = hosts + 1, listeners + count
      end
    end
    local members = countPeople(head .. ':members')
    answer[#answer + 1] = { tonumber(seq or 0), members, hosts, listeners, isLeft }
  end
end
return answer`;

/**
 * Renews a node's lease. KEYS: the sorted set of nodes. ARGV: node. Answer: whether it had none, Unix
 * ms, the nodes with a lease.
 */
export const renew = `#!lua flags=allow-oom
${NOW}
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
local hadNone = call('ZADD', KEYS[1], now + ${LEASE_MS}, ARGV[4])
return { hadNone, now, unpack(call('ZRANGE', KEYS[1], 0, -1)) }`;

/**
 * Removes a node from a room. ARGV: node, ms to keep an unused room. Answer: how many nodes are
 * left; -1 for none where events still wait, which must be found in the list of rooms.
 */
export const release = `#!lua flags=allow-oom
redis.call('HDEL', KEYS[4], ARGV[4])
local left = redis.call('HLEN', KEYS[4])
if left == 0 then
  for i = 1, ${KEPT.length} do redis.call('PEXPIRE', KEYS[i], ARGV[5]) end
  if redis.call('EXISTS', KEYS[1] .. ':events') == 1 then return -1 end
end
return left`;

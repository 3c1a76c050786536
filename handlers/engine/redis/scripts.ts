/**
 * The Lua scripts that run inside Redis, each one atomic in the room it works on.
 *
 * A room's keys share the hash tag `{room}` and so one slot of a cluster; its channel has the name of
 * its head key. The keys, in the order in which every script gets them:
 *
 * 1. head, a hash: `epoch`, `seq`, and what tells whether a new epoch must begin
 * 2. log, a stream: entry `{seq}-{run}` has one field, `{time} {sender}{message}`
 * 3. and 4. ids of this period and of the one before: a hash, session → number of ids, session and id →
 *    `{seq}-{run} {time} {ordinal} {digest}`, `r`, ordinal modulo 1,000 and session → id
 * 5. members, a hash: `{node}/{member}` → name
 * 6. nodes, a hash: node → `{since} {listeners}`: since when it is here, in Unix ms; -1: not hosting
 *
 * And in the room's slot `{head}:events`, a list: what `_events` is to hear, `{n} {event} {members} {name}`.
 *
 * Outside of a room's slot are `{prefix}:rooms`, the sorted set of hosted rooms, and `{prefix}:nodes`,
 * a sorted set with the Unix ms at which each node's lease ends.
 *
 * Texts of any content are packed as `{length} {text}`. The first letter of what a channel carries
 * says what it is: see `RoomView`.
 *
 * Redis writes what a script changed to its file as one MULTI … EXEC. If it is killed in the middle
 * of that, it drops the part at the first restart, but may bring pieces of it back at the second one,
 * at the same place in the file (https://github.com/valkey-io/valkey/pull/4342). Nobody was told of
 * them, and their numbers have been given to other messages since. So every entry carries the count
 * of server runs, of one number the last run's entry is valid, nothing beyond the head is read, and
 * ids are written last.
 *
 * @module
 */
import { DEDUPE_MS, IDS_PER_SESSION } from "../dedupe.ts";

/** How long a node that says nothing keeps its members, in ms. */
export const LEASE_MS = 15_000;
/** By how much the clocks of two servers of a cluster may differ, in ms. */
const CLOCK_SKEW_MS = 5_000;
/** How long events wait for a node that publishes them, in ms: a week. */
const OUTBOX_MS = 604_800_000;
/** The most messages that one `sync` answers with. */
const SYNC_MESSAGES = 50;
/** With this many fields a room's ids begin a new period early, unless one has a digest. */
const MAX_ID_FIELDS = 200_000;
/** The most names that `members` answers with. */
export const MAX_NAMES = 1_000;

/** The room's keys; the first one names its channel, too. */
export function keysOf(prefix: string, room: string): string[] {
  const head = `${prefix}:{${room}}`;
  return [head, ...["log", "ids", "ids:old", "members", "nodes"].map((key) => `${head}:${key}`)];
}

/**
 * Opens the room: reads its head, or creates it. If another server process (by run id) has the room
 * than before, a new epoch begins, with the numbers going on, unless both processes promise that
 * nothing acked is lost. `lineage` is `{epoch}={seq} …`: the last few epochs and the seq at which
 * each ended. ARGV: run id, whether the server is durable (1 or 0), ms to keep the room.
 */
const OPEN = `
local head, log, ids, old, members, nodes = unpack(KEYS)
local run, durable, ttl = ARGV[1], ARGV[2], ARGV[3]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', head,
  'epoch', 'seq', 'run', 'durable', 'runs', 'lineage', 'version', 'since', 'pinned')
local epoch, seq, runs = h[1], tonumber(h[2] or 0), tonumber(h[5] or 0)
local lineage, version = h[6] or '', tonumber(h[7] or 0)
local function begin(isNewEpoch)
  if isNewEpoch then
    if epoch then lineage = lineage .. epoch .. '=' .. seq .. ' ' end
    if select(2, string.gsub(lineage, ' ', '')) > 8 then
      lineage = string.gsub(lineage, '^%S+ ', '')
    end
    epoch = string.format('%s-%x', string.sub(run, 1, 8), t[1] * 1000000 + t[2])
    redis.call('HDEL', head, 'n')
  end
  runs = runs + 1
  redis.call('HSET', head, 'epoch', epoch, 'seq', seq, 'run', run, 'durable', durable,
    'runs', runs, 'lineage', lineage)
  redis.call('PEXPIRE', head, ttl)
end
local function range(first, last) return redis.call('XRANGE', log, first, last) end
if not epoch then
  redis.call('UNLINK', log, ids, old)
  begin(true)
elseif h[3] ~= run then
  begin(h[4] ~= '1' or durable ~= '1')
elseif h[4] ~= durable then
  redis.call('HSET', head, 'durable', durable)
end`;

/**
 * Numbers, keeps and publishes a message. ARGV: HISTORY_SIZE, packed sender and message, and for a
 * message with an id: session, id, digest, whether one more id may be remembered (1 or 0). A session's
 * ids without a digest stand in a ring of fields, so that a new id replaces the oldest one.
 */
const publish = `#!lua
${OPEN}
local session, id, ordinal
if ARGV[6] then
  local isFull = redis.call('HLEN', ids) >= ${MAX_ID_FIELDS} and now - (h[9] or 0) >= ${DEDUPE_MS}
  if isFull or now - (h[8] or 0) >= ${DEDUPE_MS} then
    redis.call('UNLINK', old)
    if redis.call('EXISTS', ids) == 1 then redis.call('RENAME', ids, old) end
    redis.call('HSET', head, 'since', now)
  end
  session = #ARGV[6] .. ' ' .. ARGV[6]
  id = session .. ARGV[7]
  local one, two = redis.call('HMGET', ids, session, id), redis.call('HMGET', old, session, id)
  local known = one[2] or two[2]
  ordinal = tonumber(one[1] or two[1] or 0)
  if known then
    local first, entry, time, place, digest = string.match(known, '^((%d+)%S+) (%d+) (%d+) (.*)$')
    local kept = range(entry, entry)
    local isLost = tonumber(entry) > seq or kept[1] and kept[#kept][1] ~= first
    local isRecent = digest ~= '' or ordinal - place < ${IDS_PER_SESSION}
    if now - time < ${DEDUPE_MS} and isRecent and not isLost then
      return digest == ARGV[8] and epoch .. ':' .. entry or 'conflict'
    end
  end
  if ARGV[9] == '0' then return 'unavailable' end
end
seq = seq + 1
local entry = now .. ' ' .. ARGV[5]
if ARGV[4] ~= '0' then
  redis.call('XADD', log, 'MAXLEN', ARGV[4], seq .. '-' .. runs, 'm', entry)
  redis.call('PEXPIRE', log, ttl)
end
redis.call('HSET', head, 'seq', seq)
redis.call('PEXPIRE', head, ttl)
if id then
  ordinal = ordinal + 1
  local known = seq .. '-' .. runs .. ' ' .. now .. ' ' .. ordinal .. ' ' .. ARGV[8]
  if ARGV[8] == '' then
    local place = 'r' .. ordinal % ${IDS_PER_SESSION} .. ' ' .. session
    local oldest = redis.call('HGET', ids, place)
    local seen = oldest and redis.call('HGET', ids, oldest)
    if seen and string.match(seen, '^%S+ %d+ (%d+)') + ${IDS_PER_SESSION} == ordinal then
      redis.call('HDEL', ids, oldest)
    end
    redis.call('HSET', ids, session, ordinal, id, known, place, id)
  else
    redis.call('HSET', ids, session, ordinal, id, known)
    redis.call('HSET', head, 'pinned', now)
  end
  redis.call('PEXPIRE', ids, ${2 * DEDUPE_MS}, 'NX')
end
redis.call('SPUBLISH', head, 'c' .. epoch .. ' ' .. seq .. ' ' .. entry)
return epoch .. ':' .. seq`;

/** Reads the log. ARGV: the epoch and seq to read from. Answer: epoch, seq, Unix ms, entries. */
const read = `#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
${OPEN}
local from = tonumber(ARGV[5])
if epoch ~= ARGV[4] or from > seq then from = 0 end
return { epoch, seq, now, from < seq and range(from + 1, seq) or {} }`;

/**
 * For the scripts that change who has joined: notifies the hosts, writes down what `_events` is to hear,
 * and keeps the keys. Their last ARGV is EVENTS. The count of a room's events starts with the time, so
 * that a room that comes back repeats no number.
 */
const PRESENCE = `
local function say(event, name)
  if not string.find(ARGV[#ARGV], event, 1, true) then return end
  redis.call('HSETNX', head, 'n', now)
  local entry = redis.call('HINCRBY', head, 'n', 1) .. ' ' .. event .. ' '
  redis.call('RPUSH', head .. ':events', entry .. redis.call('HLEN', members) .. ' ' .. name)
  redis.call('PEXPIRE', head .. ':events', ${OUTBOX_MS})
end
local function notify(what)
  version = redis.call('HINCRBY', head, 'version', 1)
  redis.call('SPUBLISH', head,
    's' .. epoch .. ' ' .. version .. ' ' .. redis.call('HLEN', members) .. ' ' .. what)
end
local function add(field, name)
  local was = redis.call('HGET', members, field)
  redis.call('HSET', members, field, name)
  notify('j' .. name .. (was or ''))
  if was then return end
  if redis.call('HLEN', members) == 1 then say('occupied', '') end
  say('join', name)
end
local function remove(field)
  local name = redis.call('HGET', members, field)
  if not name then return end
  redis.call('HDEL', members, field)
  notify('l' .. name)
  say('leave', name)
  if redis.call('HLEN', members) == 0 then say('vacated', '') end
end
local function keep()
  for _, key in ipairs({ head, log, members, nodes }) do redis.call('PEXPIRE', key, ttl) end
end
local function stay(node, listeners)
  if not listeners then
    listeners = string.match(redis.call('HGET', nodes, node) or '', ' (.*)') or '-1'
  end
  redis.call('HSET', nodes, node, now .. ' ' .. listeners)
  keep()
end`;

/**
 * A function `isDead(node, entry)`: whether a room's node had no lease when the caller last looked at
 * the leases, at Unix ms `seenAt` (0: it does not know them), though it was in the room before.
 */
const IS_DEAD = `
local function isDead(node, entry, live, seenAt)
  local since = tonumber(string.match(entry, '^%d+'))
  return since < tonumber(seenAt) - ${CLOCK_SKEW_MS} and not string.find(live, node, 1, true)
end`;

/**
 * Compares a node's position with the head and answers with what it missed; removes the members of
 * dead nodes. If Redis does not have the number that the node is at, or has another message there,
 * messages were lost: a new epoch begins. ARGV: the node's epoch ('' for none), seq and last message's
 * time ('' if unknown), node, its listeners (-1: not hosting), nodes with a lease and when that was
 * seen. Answer: epoch, seq, members, version of the member list, whether the node was unknown, whether
 * there is more to remove, entries of the first missed messages.
 */
const sync = `#!lua flags=allow-oom
${OPEN}
${PRESENCE}
${IS_DEAD}
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
  entries = range(start, math.min(seq, start + ${SYNC_MESSAGES - 1}))
end
local wasUnknown = 1 - redis.call('HEXISTS', nodes, node)
stay(node, listeners)
local hasMore, removed = 0, 0
local all = redis.call('HGETALL', nodes)
for i = 1, #all, 2 do
  if isDead(all[i], all[i + 1], ARGV[9], ARGV[10]) then
    local cursor = '0'
    repeat
      local page = redis.call('HSCAN', members, cursor, 'MATCH', all[i] .. '/*', 'COUNT', 500)
      cursor = page[1]
      for j = 1, #page[2], 2 do remove(page[2][j]) end
      removed = removed + #page[2] / 2
    until cursor == '0' or removed >= 500
    if cursor == '0' then redis.call('HDEL', nodes, all[i]) else hasMore = 1 end
  end
end
return { epoch, seq, redis.call('HLEN', members), version, wasUnknown, hasMore, entries }`;

/** Adds a member, or renames one. ARGV: node, member, packed name. */
const join = `#!lua
${OPEN}
${PRESENCE}
add(ARGV[4] .. '/' .. ARGV[5], ARGV[6])
stay(ARGV[4])`;

/** Removes a member. ARGV: node, member. */
const leave = `#!lua flags=allow-oom
${OPEN}
${PRESENCE}
remove(ARGV[4] .. '/' .. ARGV[5])`;

/** Sets which members a node has in the room. ARGV: node; member, packed name, … */
const register = `#!lua flags=allow-oom
${OPEN}
${PRESENCE}
local isHere = {}
for i = 5, #ARGV - 1, 2 do
  local field = ARGV[4] .. '/' .. ARGV[i]
  isHere[field] = true
  if redis.call('HGET', members, field) ~= ARGV[i + 1] then add(field, ARGV[i + 1]) end
end
local cursor = '0'
repeat
  local page = redis.call('HSCAN', members, cursor, 'MATCH', ARGV[4] .. '/*', 'COUNT', 1000)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    if not isHere[page[2][i]] then remove(page[2][i]) end
  end
until cursor == '0'
stay(ARGV[4])
return 1`;

/**
 * Compares many rooms of one server, whatever their slots, and keeps those that are due. ARGV: node,
 * nodes with a lease and when that was seen; for each room: head key, the node's listeners (-1: not
 * hosting), ms to keep it (0: as it is). Answer, for each room: epoch, seq, and whether it needs a sync
 * all the same, because the node is missing there, another one is dead, or the server has lost it.
 */
const compare = `#!lua flags=allow-oom,allow-cross-slot-keys
${IS_DEAD}
local node, live, seenAt, answer = ARGV[4], ARGV[5], ARGV[6], {}
for i = 7, #ARGV, 3 do
  local head = ARGV[i]
  local h = redis.pcall('HMGET', head, 'epoch', 'seq', 'run')
  if h.err or h[3] ~= ARGV[1] then
    answer[#answer + 1] = { '', 0, 1 }
  else
    local all, mine, isDue = redis.call('HGETALL', head .. ':nodes'), false, 0
    for j = 1, #all, 2 do
      if all[j] == node then mine = all[j + 1]
      elseif isDead(all[j], all[j + 1], live, seenAt) then isDue = 1 end
    end
    local since, listeners = string.match(mine or '', '(.*) (.*)')
    if not mine then isDue = 1
    elseif listeners ~= ARGV[i + 1] then
      redis.call('HSET', head .. ':nodes', node, since .. ' ' .. ARGV[i + 1])
    end
    if ARGV[i + 2] ~= '0' then
      for _, key in ipairs({ '', ':log', ':members', ':nodes' }) do
        redis.call('PEXPIRE', head .. key, ARGV[i + 2])
      end
    end
    answer[#answer + 1] = { h[1], tonumber(h[2]), isDue }
  end
end
return answer`;

/**
 * Deletes what was published of a room's outbox, and reads on. ARGV: the number up to which it was.
 * Answer: the next entries.
 */
const outbox = `#!lua flags=allow-oom
local list = KEYS[1] .. ':events'
local first = redis.call('LINDEX', list, 0)
while first and tonumber(string.match(first, '^%d+')) <= tonumber(ARGV[4]) do
  redis.call('LPOP', list)
  first = redis.call('LINDEX', list, 0)
end
return redis.call('LRANGE', list, 0, 99)`;

/**
 * Which rooms of one server dead nodes have left something in: members, or an outbox. ARGV: nodes with a
 * lease and when that was seen; head keys. Answer, for each room: 1 or 0.
 */
const abandoned = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
${IS_DEAD}
local answer = {}
for i = 6, #ARGV do
  local isLeft, all = 1, redis.pcall('HGETALL', ARGV[i] .. ':nodes')
  if not all.err and redis.call('EXISTS', ARGV[i] .. ':events') == 0 then
    isLeft = 0
    for j = 1, #all, 2 do
      if isDead(all[j], all[j + 1], ARGV[4], ARGV[5]) then isLeft = 1 end
    end
  end
  answer[#answer + 1] = isLeft
end
return answer`;

/**
 * Renews a node's lease. KEYS: the sorted set of nodes. ARGV: node. Answer: whether it had none, Unix
 * ms, the nodes with a lease.
 */
const renew = `#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
local hadNone = redis.call('ZADD', KEYS[1], now + ${LEASE_MS}, ARGV[4])
return { hadNone, now, unpack(redis.call('ZRANGE', KEYS[1], 0, -1)) }`;

/** Removes a node from a room. ARGV: node, ms to keep an unused room. Answer: how many nodes are left. */
const release = `#!lua flags=allow-oom
redis.call('HDEL', KEYS[6], ARGV[4])
local left = redis.call('HLEN', KEYS[6])
if left == 0 then
  for _, key in ipairs({ 1, 2, 5 }) do redis.call('PEXPIRE', KEYS[key], ARGV[5]) end
end
return left`;

/** Who has joined. Answer: their number, then packed names. */
const members = `#!lua flags=no-writes,allow-oom
local answer, cursor = { redis.call('HLEN', KEYS[5]) }, '0'
repeat
  local page = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', ${MAX_NAMES})
  cursor = page[1]
  for i = 2, #page[2], 2 do answer[#answer + 1] = page[2][i] end
until cursor == '0' or #answer > ${MAX_NAMES}
return answer`;

/**
 * Rooms of one server in short. ARGV: node, nodes with a lease, head keys. Answer, for each room: seq,
 * members, other nodes that host it, their listeners, and whether those that did have left members or
 * events; nothing for one that the server does not have.
 */
const summaries = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
local answer = {}
for i = 6, #ARGV do
  local head, hosts, listeners = ARGV[i], 0, 0
  local seq = redis.pcall('HGET', head, 'seq')
  if type(seq) == 'table' then
    answer[#answer + 1] = {}
  else
    local all = redis.call('HGETALL', head .. ':nodes')
    for j = 1, #all, 2 do
      local count = tonumber(string.match(all[j + 1], ' (.*)'))
      local isLive = ARGV[5] == '' or string.find(ARGV[5], all[j], 1, true)
      if all[j] ~= ARGV[4] and isLive and count >= 0 then
        hosts, listeners = hosts + 1, listeners + count
      end
    end
    local members = redis.call('HLEN', head .. ':members')
    local isAbandoned = hosts == 0 and (members > 0 or redis.call('EXISTS', head .. ':events') == 1)
    answer[#answer + 1] = { tonumber(seq or 0), members, hosts, listeners, isAbandoned and 1 or 0 }
  end
end
return answer`;

/** All scripts by name. Each begins with the ARGV of {@link OPEN}; a doc comment names the rest. */
export const SCRIPTS = {
  publish,
  read,
  sync,
  compare,
  outbox,
  abandoned,
  renew,
  join,
  leave,
  register,
  release,
  members,
  summaries,
};

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
 * 5. members, a hash: `{node}/{member}` → name, or of a user `={bytes of user} {user}{name}`; `={user}` →
 *    `{sockets} {name}`; `more` → by how many the fields outnumber the people, where there are users
 * 6. nodes, a hash: node → `{since} {listeners}`: since when it is here, in Unix ms; -1: not hosting
 * 7. state, a hash: key → its last change: rev, Unix ms, when it ends (0: never), the member whose end
 *    ends it (`{node}/{member}` or nothing), packed sender and value (MessagePack)
 * 8. revs, a sorted set: key → rev of its last change, below 0 if that removed it
 * 9. ends, a sorted set: key → Unix ms at which it ends
 * 10. bound, a sorted set, all with 0: `{node}/{member} {key}`
 *
 * And in the room's slot `{head}:events`, a list: what `_events` is to hear, `{n} {event} {members} {name}{user}`.
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
import { MAX_LISTED } from "../presence.ts";

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

/** The room's keys; the first one names its channel, too. */
export function keysOf(prefix: string, room: string): string[] {
  const head = `${prefix}:{${room}}`;
  return [head, ...PARTS.map((part) => `${head}:${part}`)];
}

const PARTS = ["log", "ids", "ids:old", "members", "nodes", "state", "revs", "ends", "bound"];
/** The most removed keys that a room remembers. */
const MAX_REMOVALS = 1_000;

/**
 * Opens the room: reads its head, or creates it. If another server process (by run id) has the room
 * than before, a new epoch begins, with the numbers going on, unless both processes promise that
 * nothing acked is lost. `lineage` is `{epoch}={seq} …`: the last few epochs and the seq at which
 * each ended. ARGV: run id, whether the server is durable (1 or 0), ms to keep the room.
 */
const OPEN = `
local head, log, ids, old, members, nodes, state, revs, ends, bound = unpack(KEYS)
local run, durable, ttl = ARGV[1], ARGV[2], ARGV[3]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', head,
  'epoch', 'seq', 'run', 'durable', 'runs', 'lineage', 'version', 'since', 'pinned', 'rev')
local epoch, seq, runs = h[1], tonumber(h[2] or 0), tonumber(h[5] or 0)
local lineage, version, rev = h[6] or '', tonumber(h[7] or 0), tonumber(h[10] or 0)
local function begin(isNewEpoch)
  if isNewEpoch then
    if epoch then lineage = lineage .. epoch .. '=' .. seq .. ' ' end
    if select(2, string.gsub(lineage, ' ', '')) > 8 then
      lineage = string.gsub(lineage, '^%S+ ', '')
    end
    epoch = string.format('%s-%x', string.sub(run, 1, 8), t[1] * 1000000 + t[2])
    rev = 0
    redis.call('UNLINK', state, revs, ends, bound)
    redis.call('HDEL', head, 'n', 'rev', 'forgotten', 'bytes')
  end
  runs = runs + 1
  redis.call('HSET', head, 'epoch', epoch, 'seq', seq, 'run', run, 'durable', durable,
    'runs', runs, 'lineage', lineage)
  redis.call('PEXPIRE', head, ttl)
end
local function keep()
  for _, key in ipairs({ head, log, members, nodes, state, revs, ends, bound }) do
    redis.call('PEXPIRE', key, ttl)
  end
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
 * For the scripts that take an id: `seen` and `remember`. ARGV: session, id, digest, whether one more id
 * may be remembered (1 or 0); all '' without an id. A session's ids without a digest stand in a ring of
 * fields, so that a new id replaces the oldest one.
 */
const IDS = `
local session, id, ordinal, digest
local function seen(scope, isLost)
  if ARGV[5] == '' then return end
  local isFull = redis.call('HLEN', ids) >= ${MAX_ID_FIELDS} and now - (h[9] or 0) >= ${DEDUPE_MS}
  if isFull or now - (h[8] or 0) >= ${DEDUPE_MS} then
    redis.call('UNLINK', old)
    if redis.call('EXISTS', ids) == 1 then redis.call('RENAME', ids, old) end
    redis.call('HSET', head, 'since', now)
  end
  session = scope .. ARGV[4]
  session, digest = #session .. ' ' .. session, ARGV[6]
  id = session .. ARGV[5]
  local one, two = redis.call('HMGET', ids, session, id), redis.call('HMGET', old, session, id)
  local known = one[2] or two[2]
  ordinal = tonumber(one[1] or two[1] or 0)
  if known then
    local first, number, time, place, was = string.match(known, '^((%d+)%S+) (%d+) (%d+) (.*)$')
    local isRecent = was ~= '' or ordinal - place < ${IDS_PER_SESSION}
    if now - time < ${DEDUPE_MS} and isRecent and not isLost(first, tonumber(number)) then
      return was == digest and number or 'conflict'
    end
  end
  if ARGV[7] == '0' then return 'unavailable' end
end
local function remember(number)
  if not id then return end
  ordinal = ordinal + 1
  local known = number .. '-' .. runs .. ' ' .. now .. ' ' .. ordinal .. ' ' .. digest
  if digest == '' then
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
end`;

/** Numbers, keeps and publishes a message. ARGV: those of {@link IDS}, HISTORY_SIZE, packed sender and message. */
const publish = `#!lua
${OPEN}
${IDS}
local first = seen('', function(entry, number)
  local kept = range(number, number)
  return number > seq or kept[1] and kept[#kept][1] ~= entry
end)
if first then return tonumber(first) and epoch .. ':' .. first or first end
seq = seq + 1
local entry = now .. ' ' .. ARGV[9]
if ARGV[8] ~= '0' then
  redis.call('XADD', log, 'MAXLEN', ARGV[8], seq .. '-' .. runs, 'm', entry)
  redis.call('PEXPIRE', log, ttl)
end
redis.call('HSET', head, 'seq', seq)
if rev > 0 then keep() else redis.call('PEXPIRE', head, ttl) end
remember(seq)
redis.call('SPUBLISH', head, 'c' .. epoch .. ' ' .. seq .. ' ' .. entry)
return epoch .. ':' .. seq`;

/**
 * For the scripts that change or read the state. `change` numbers a change and publishes it, `expire`
 * removes the keys that have ended, `unbind` those bound to members whose field begins with `prefix`,
 * but for those of `others`. `changes` lists the last change of each key that changed behind a rev; of
 * all behind -1, but for removals.
 */
const STATE = `
local function find(key)
  local packed = redis.call('HGET', state, key)
  if packed then return cmsgpack.unpack(packed) end
end
local function change(key, sender, value, endsAt, owner)
  local _, _, _, lastOwner, lastSender, lastValue = find(key)
  local isRemoved, bytes = value == 'null', 0
  if lastValue and lastValue ~= 'null' then bytes = -#key - #lastSender - #lastValue end
  if not isRemoved then bytes = bytes + #key + #sender + #value end
  rev = rev + 1
  redis.call('HSET', head, 'rev', rev)
  redis.call('HINCRBY', head, 'bytes', bytes)
  redis.call('HSET', state, key, cmsgpack.pack(rev, now, endsAt, owner, sender, value))
  redis.call('ZADD', revs, isRemoved and -rev or rev, key)
  if endsAt > 0 then redis.call('ZADD', ends, endsAt, key) else redis.call('ZREM', ends, key) end
  if lastOwner and lastOwner ~= '' then redis.call('ZREM', bound, lastOwner .. ' ' .. key) end
  if owner ~= '' then redis.call('ZADD', bound, 0, owner .. ' ' .. key) end
  if isRemoved and redis.call('ZCOUNT', revs, '-inf', '(0') > ${MAX_REMOVALS} then
    local oldest = redis.call('ZREVRANGEBYSCORE', revs, '(0', '-inf', 'LIMIT', 0, 1)[1]
    redis.call('HSET', head, 'forgotten', -redis.call('ZSCORE', revs, oldest))
    redis.call('ZREM', revs, oldest)
    redis.call('HDEL', state, oldest)
  end
  local left = endsAt > 0 and endsAt - now or 0
  redis.call('SPUBLISH', head,
    'k' .. table.concat({ epoch, rev, left, now, key, sender .. value }, ' '))
end
local function drop(key)
  local _, _, _, _, sender = find(key)
  change(key, sender, 'null', 0, '')
end
local function expire()
  for _, key in ipairs(redis.call('ZRANGE', ends, '-inf', now, 'BYSCORE')) do drop(key) end
end
local function unbind(prefix, others)
  local range = { '[' .. prefix, '[' .. prefix .. '\\255' }
  for _, place in ipairs(redis.call('ZRANGE', bound, range[1], range[2], 'BYLEX')) do
    local field, key = string.match(place, '^(.*) (%S+)$')
    if not (others and others[field]) then drop(key) end
  end
end
local function changes(from)
  local found, ranges = {}, { { '(' .. from, '+inf' } }
  if from < 0 then ranges[1][1] = '(0' else ranges[2] = { '-inf', '(' .. -from } end
  for _, range in ipairs(ranges) do
    for _, key in ipairs(redis.call('ZRANGE', revs, range[1], range[2], 'BYSCORE')) do
      local at, time, _, _, sender, value = find(key)
      found[#found + 1] = { key, at, time, sender .. value }
    end
  end
  return found
end
local function knows(from)
  return from <= rev and from >= tonumber(redis.call('HGET', head, 'forgotten') or 0)
end`;

/**
 * Changes a key of the state. ARGV: those of {@link IDS}, key, packed sender, value, the rev that the
 * key must have ('' for any), ms until it ends (0: never), `{node}/{member}` to which it is bound or '',
 * MAX_KEYS, MAX_STATE_BYTES. Answer: epoch and rev, or a refusal and the key's rev.
 */
const set = `#!lua
${OPEN}
${IDS}
${STATE}
expire()
local key, sender, value, ms = ARGV[8], ARGV[9], ARGV[10], tonumber(ARGV[12])
local first = seen('\\2' .. epoch, function(_, number) return number > rev end)
if first then return { tonumber(first) and epoch or first, tonumber(first) or 0 } end
local keyRev, _, _, _, lastSender, lastValue = find(key)
if lastValue == 'null' then keyRev, lastValue = nil, nil end
if ARGV[11] ~= '' and tonumber(ARGV[11]) ~= (keyRev or 0) then
  return { 'rev_conflict', keyRev or 0 }
end
if value ~= 'null' then
  local bytes = tonumber(redis.call('HGET', head, 'bytes') or 0) + #key + #sender + #value
  if lastValue then bytes = bytes - #key - #lastSender - #lastValue end
  local isFull = redis.call('ZCOUNT', revs, '(0', '+inf') >= tonumber(ARGV[14])
  if isFull and not lastValue or bytes > tonumber(ARGV[15]) then return { 'too_many_keys', 0 } end
end
if value ~= 'null' or lastValue then
  change(key, sender, value, ms > 0 and now + ms or 0, value ~= 'null' and ARGV[13] or '')
end
keep()
remember(rev)
return { epoch, rev }`;

/** Reads the state. ARGV: the epoch and rev to read from. Answer: epoch, rev, that rev or -1 for all, entries. */
const readState = `#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
${OPEN}
${STATE}
expire()
local from = tonumber(ARGV[5])
if epoch ~= ARGV[4] or not knows(from) then from = -1 end
return { epoch, rev, from, changes(from) }`;

/** Reads the log. ARGV: the epoch and seq to read from. Answer: epoch, seq, Unix ms, entries. */
const read = `#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
${OPEN}
local from = tonumber(ARGV[5])
if epoch ~= ARGV[4] or from > seq then from = 0 end
return { epoch, seq, now, from < seq and range(from + 1, seq) or {} }`;

/** How many people a hash of members has. */
const COUNT = `
local function count(members)
  return redis.call('HLEN', members) - (redis.call('HGET', members, 'more') or 0)
end`;

/**
 * For the scripts that change who has joined: notifies the hosts, writes down what `_events` is to hear,
 * and keeps the keys. Their last ARGV is EVENTS. The count of a room's events starts with the time, so
 * that a room that comes back repeats no number.
 */
const PRESENCE = `
${STATE}
${COUNT}
local function split(who)
  local bytes, rest = string.match(who, '^=(%d+) (.*)$')
  if not bytes then return who end
  return string.sub(rest, bytes + 1), string.sub(rest, 1, bytes)
end
local function addSocket(user, name, step)
  local field = '=' .. user
  local sockets, was = string.match(redis.call('HGET', members, field) or '0 ', '^(%d+) (.*)$')
  sockets = sockets + step
  if sockets > 0 then
    redis.call('HSET', members, field, sockets .. ' ' .. (name or was))
  else
    redis.call('HDEL', members, field)
  end
  -- It counts itself, too.
  local more = redis.call('HINCRBY', members, 'more', step)
  if more == 1 and step > 0 then redis.call('HINCRBY', members, 'more', 1) end
  if more == 1 and step < 0 then redis.call('HDEL', members, 'more') end
  return sockets, was ~= '' and was
end
local function say(event, name)
  if not string.find(ARGV[#ARGV], event, 1, true) then return end
  redis.call('HSETNX', head, 'n', now)
  local entry = redis.call('HINCRBY', head, 'n', 1) .. ' ' .. event .. ' '
  redis.call('RPUSH', head .. ':events', entry .. count(members) .. ' ' .. name)
  redis.call('PEXPIRE', head .. ':events', ${OUTBOX_MS})
end
local function notify(what)
  version = redis.call('HINCRBY', head, 'version', 1)
  redis.call('SPUBLISH', head,
    's' .. epoch .. ' ' .. version .. ' ' .. count(members) .. ' ' .. what)
end
local function add(field, who)
  local name, user = split(who)
  local before = redis.call('HGET', members, field)
  local was, to = before, ''
  redis.call('HSET', members, field, who)
  if user then
    was = select(2, addSocket(user, name, before and 0 or 1))
    local member = string.match(field, '/(.*)$')
    if not before and was == name then was, to = false, #member .. ' ' .. member end
  end
  notify('j' .. name .. (was or '0 ') .. (user or '0 ') .. to)
  if was or to ~= '' then return end
  if count(members) == 1 then say('occupied', '') end
  say('join', name .. (user or ''))
end
local function remove(field)
  local who = redis.call('HGET', members, field)
  if who then
    local name, user = split(who)
    local sockets = 0
    redis.call('HDEL', members, field)
    if user then
      local last
      sockets, last = addSocket(user, nil, -1)
      name = last or name
    end
    if sockets <= 0 then
      notify('l' .. name .. '0 ' .. (user or ''))
      say('leave', name .. (user or ''))
      if count(members) == 0 then say('vacated', '') end
    end
  end
  unbind(field .. ' ')
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
 * seen, the node's rev. Answer: epoch, seq, members, version of the member list, whether the node was
 * unknown, whether there is more to remove, entries of the first missed messages, rev, what changed
 * of the state if that is known, ms until a key ends (-1: none does).
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
  if isOther or seq < at or rev < tonumber(ARGV[11]) then begin(true) end
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
    if cursor == '0' then
      unbind(all[i] .. '/')
      redis.call('HDEL', nodes, all[i])
    else
      hasMore = 1
    end
  end
end
local known = tonumber(ARGV[11])
local isKnown = epoch == ARGV[4] and known < rev and knows(known)
local soonest = redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES')[2]
return { epoch, seq, count(members), version, wasUnknown, hasMore, entries, rev,
  isKnown and changes(known) or {}, soonest and soonest - now or -1 }`;

/** Adds a member, or renames one. ARGV: node, member, its value in the hash. */
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

/** Sets which members a node has in the room. ARGV: node; member, its value in the hash, … */
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
unbind(ARGV[4] .. '/', isHere)
stay(ARGV[4])
return 1`;

/**
 * Compares many rooms of one server, whatever their slots, and keeps those that are due. ARGV: node,
 * nodes with a lease and when that was seen; for each room: head key, the node's listeners (-1: not
 * hosting), ms to keep it (0: as it is). Answer, for each room: epoch, seq, whether it needs a sync all
 * the same, because the node is missing there, another one is dead, or the server has lost it, and rev.
 */
const compare = `#!lua flags=allow-oom,allow-cross-slot-keys
${IS_DEAD}
local node, live, seenAt, answer = ARGV[4], ARGV[5], ARGV[6], {}
for i = 7, #ARGV, 3 do
  local head = ARGV[i]
  local h = redis.pcall('HMGET', head, 'epoch', 'seq', 'run', 'rev')
  if h.err or h[3] ~= ARGV[1] then
    answer[#answer + 1] = { '', 0, 1, 0 }
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
      for _, part in ipairs({ '', ':log', ':members', ':nodes', ':state', ':revs', ':ends', ':bound' }) do
        redis.call('PEXPIRE', head .. part, ARGV[i + 2])
      end
    end
    answer[#answer + 1] = { h[1], tonumber(h[2]), isDue, tonumber(h[4] or 0) }
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

/**
 * Removes a node from a room. ARGV: node, ms to keep an unused room. Answer: how many nodes are
 * left; -1 for none where events still wait, which must be found in the list of rooms.
 */
const release = `#!lua flags=allow-oom
redis.call('HDEL', KEYS[6], ARGV[4])
local left = redis.call('HLEN', KEYS[6])
if left == 0 then
  for _, key in ipairs({ 1, 2, 5, 7, 8, 9, 10 }) do redis.call('PEXPIRE', KEYS[key], ARGV[5]) end
  if redis.call('EXISTS', KEYS[1] .. ':events') == 1 then return -1 end
end
return left`;

/** Who has joined. Answer: how many people, then `{sockets} {name}{user}` of each, packed. */
const members = `#!lua flags=no-writes,allow-oom
${COUNT}
local answer, cursor = { count(KEYS[5]) }, '0'
repeat
  local page = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', ${MAX_LISTED})
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
 * Rooms of one server in short. ARGV: node, nodes with a lease, head keys. Answer, for each room: seq,
 * members, other nodes that host it, their listeners, and whether those that did have left members or
 * events; nothing for one that the server does not have.
 */
const summaries = `#!lua flags=no-writes,allow-oom,allow-cross-slot-keys
${COUNT}
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
    local members = count(head .. ':members')
    local isAbandoned = hosts == 0 and (members > 0 or redis.call('EXISTS', head .. ':events') == 1)
    answer[#answer + 1] = { tonumber(seq or 0), members, hosts, listeners, isAbandoned and 1 or 0 }
  end
end
return answer`;

/** All scripts by name. Each begins with the ARGV of {@link OPEN}; a doc comment names the rest. */
export const SCRIPTS = {
  publish,
  set,
  readState,
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

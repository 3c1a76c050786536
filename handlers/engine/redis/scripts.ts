/**
 * What runs inside Redis: one Lua script a step, each atomic in the room it works on.
 *
 * A room's keys share the hash tag `{room}`, and its channel bears the name of its head key, so a
 * cluster could spread the rooms. Keys, in the order that every script gets them:
 *
 * 1. the head, a hash: `epoch`, `seq`, and what the next epoch is told from
 * 2. the log, a stream: entry `{seq}-{run}` has one field, `{time} {sender}{message}`
 * 3. and 4. ids, this generation's and the last one's: a hash, `{seq}-{run} {time} {ordinal} {digest}`
 * 5. members, a hash: `{node}/{member}` → name
 * 6. nodes, a hash: node → `{lease} {listeners}`; the lease ends at that Unix ms
 *
 * Texts of any content are packed as `{length} {text}`. What goes over the channel is told apart by
 * its first letter: see `RoomView`.
 *
 * Redis keeps what a script wrote as one MULTI … EXEC. Killed while it writes that down, it forgets
 * it at the first restart, but may bring parts of it back at the second one, in the old place of its
 * file (https://github.com/valkey-io/valkey/pull/4342). Nobody was told of it, and others have got
 * its number since. So entries bear the count of server runs, of one number the last run's entry
 * counts, none is read beyond the head, and ids are written last.
 *
 * @module
 */
import { DEDUPE_MS, IDS_PER_SESSION } from "../dedupe.ts";

/** The room's keys; the first one names its channel, too. */
export function keysOf(prefix: string, room: string): string[] {
  const head = `${prefix}:{${room}}`;
  return [head, ...["log", "ids", "ids:old", "members", "nodes"].map((key) => `${head}:${key}`)];
}

/**
 * Opens the room: its head, made if need be. A new epoch begins, with the numbers going on, where
 * another server process than the last one (by run id) holds the room, unless both promise that
 * nothing acked is lost. `lineage` is `{epoch}={seq} …`: which epochs ended, and where the next one
 * began; the last few. ARGV: run id, whether the server is durable (1 or 0), ms to keep the room.
 */
export const OPEN = `
local head, log, ids, old, members, nodes = unpack(KEYS)
local run, durable, ttl = ARGV[1], ARGV[2], ARGV[3]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', head,
  'epoch', 'seq', 'run', 'durable', 'runs', 'lineage', 'version', 'since')
local epoch, seq, runs = h[1], tonumber(h[2] or 0), tonumber(h[5] or 0)
local lineage, version = h[6] or '', tonumber(h[7] or 0)
local function begin(isNewEpoch)
  if isNewEpoch then
    if epoch then lineage = lineage .. epoch .. '=' .. seq .. ' ' end
    if select(2, string.gsub(lineage, ' ', '')) > 8 then
      lineage = string.gsub(lineage, '^%S+ ', '')
    end
    epoch = string.format('%s-%x', string.sub(run, 1, 8), t[1] * 1000000 + t[2])
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
 * Numbers, keeps and hands out a message. ARGV: HISTORY_SIZE, packed sender and message, and for a
 * message with an id: session, id, digest, whether one more id may be remembered (1 or 0).
 */
export const publish = `#!lua
${OPEN}
local session, id, ordinal
if ARGV[6] then
  if now - (h[8] or 0) >= ${DEDUPE_MS} then
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
  redis.call('HSET', ids, session, ordinal, id, known)
  redis.call('PEXPIRE', ids, ${2 * DEDUPE_MS}, 'NX')
end
redis.call('SPUBLISH', head, 'c' .. epoch .. ' ' .. seq .. ' ' .. entry)
return epoch .. ':' .. seq`;

/** What is kept. ARGV: an epoch and the seq behind which to read there. Answer: epoch, seq, ms, entries. */
export const read = `#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
${OPEN}
local from = tonumber(ARGV[5])
if epoch ~= ARGV[4] or from > seq then from = 0 end
return { epoch, seq, now, from < seq and range(from + 1, seq) or {} }`;

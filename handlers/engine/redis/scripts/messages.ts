/** Scripts that number, keep and read messages. */
import { DEDUPE_MS, IDS_PER_SESSION } from "../../dedupe.ts";
import { OPEN } from "./room.ts";

/** With this many fields a room's ids begin a new period early, unless one has a digest. */
const MAX_ID_FIELDS = 200_000;

/**
 * For the scripts that take an id: `seen` gives the answer if the id is known or can't be
 * remembered. ARGV:
 * session, id, digest, whether one more id may be remembered (1 or 0); all '' without an id. A session's
 * ids without a digest stand in a ring of fields, so that a new id replaces the oldest one.
 */
export const IDS = `
local session, id, ordinal, digest
local function seen(scope, isLost)
  if ARGV[5] == '' then return end
  local isFull = call('HLEN', ids) >= ${MAX_ID_FIELDS} and now - (h[9] or 0) >= ${DEDUPE_MS}
  if isFull or now - (h[8] or 0) >= ${DEDUPE_MS} then
    call('UNLINK', old)
    if call('EXISTS', ids) == 1 then call('RENAME', ids, old) end
    call('HSET', head, 'since', now)
  end
  session = scope .. ARGV[4]
  session, digest = #session .. ' ' .. session, ARGV[6]
  id = session .. ARGV[5]
  local one, two = call('HMGET', ids, session, id), call('HMGET', old, session, id)
  local known = one[2] or two[2]
  ordinal = tonumber(one[1] or two[1] or 0)
  if known then
    local first, number, time, place, was = string.match(known, '^((%d+)%S+) (%d+) (%d+) (.*)$')
    local isRecent = was ~= '' or ordinal - place < ${IDS_PER_SESSION}
    if now - time < ${DEDUPE_MS} and isRecent and not isLost(first, tonumber(number)) then
      return was == digest and epoch .. ':' .. number or 'conflict'
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
    local oldest = call('HGET', ids, place)
    local seen = oldest and call('HGET', ids, oldest)
    if seen and string.match(seen, '^%S+ %d+ (%d+)') + ${IDS_PER_SESSION} == ordinal then
      call('HDEL', ids, oldest)
    end
    call('HSET', ids, session, ordinal, id, known, place, id)
  else
    call('HSET', ids, session, ordinal, id, known)
    call('HSET', head, 'pinned', now)
  end
  call('PEXPIRE', ids, ${2 * DEDUPE_MS}, 'NX')
end`;

/**
 * Numbers, keeps and publishes a message. ARGV: those of {@link IDS}, HISTORY_SIZE, packed sender and
 * message. Answer: `{epoch}:{seq}` or a refusal.
 */
export const publish = `#!lua
${OPEN}
${IDS}
local answer = seen('', function(entry, number)
  local kept = range(number, number)
  return number > seq or kept[1] and kept[#kept][1] ~= entry
end)
if answer then return answer end
seq = seq + 1
local entry = now .. ' ' .. ARGV[9]
if ARGV[8] ~= '0' then
  call('XADD', log, 'MAXLEN', ARGV[8], seq .. '-' .. runs, 'm', entry)
  call('PEXPIRE', log, ttl)
end
call('HSET', head, 'seq', seq)
if rev > 0 then keep() else call('PEXPIRE', head, ttl) end
remember(seq)
call('SPUBLISH', head, 'c' .. epoch .. ' ' .. seq .. ' ' .. entry)
return epoch .. ':' .. seq`;

/** Reads the log. ARGV: the epoch and seq to read from. Answer: epoch, seq, Unix ms, entries. */
export const read = `#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
${OPEN}
local from = tonumber(ARGV[5])
if epoch ~= ARGV[4] or from > seq then from = 0 end
return { epoch, seq, now, from < seq and range(from + 1, seq) or {} }`;

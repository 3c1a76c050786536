/**
 * A room in Redis: its keys, and the Lua that its scripts begin with. Each script is atomic in the room
 * that it works on: its keys share the hash tag `{room}`, and so one slot of a cluster.
 *
 * Redis writes what a script changed to its file as one MULTI … EXEC. If it is killed in the middle of
 * that, it drops the part at the first restart, but may bring pieces of it back at the second one
 * (https://github.com/valkey-io/valkey/pull/4342). Nobody was told of them, and their numbers have been
 * given to other messages since. So every entry carries the count of server runs; if two have
 * the same number, the later run's is valid. Nothing beyond the head is read, and ids are written last.
 */

/** The keys that live as long as the room, by what follows the name of its head. */
export const KEPT = [
  /** Head, a hash: `epoch`, `seq`, `rev`, and what tells whether a new epoch must begin. Also the channel. */
  "",
  /** A stream: entry `{seq}-{run}` has one field, `{time} {sender}{message}`. */
  ":log",
  /**
   * A hash: `{node}/{member}` → name, or of a user's socket `={bytes of user} {user}{name}`; `={user}` →
   * `{sockets} {name}`; where there are users, `more` → by how many the fields outnumber the people.
   */
  ":members",
  /** A hash: node → `{since} {listeners}`: since when it is here, in Unix ms; -1: not hosting. */
  ":nodes",
  /**
   * A hash: key → its last change: rev, Unix ms, when it ends (0: never), the member whose end ends it
   * (`{node}/{member}` or nothing), packed sender, value (MessagePack).
   */
  ":state",
  /** A sorted set: key → rev of its last change, below 0 if that removed it. */
  ":revs",
  /** A sorted set: key → Unix ms at which it ends. */
  ":ends",
  /** A sorted set, all with 0: `{node}/{member} {key}`. */
  ":bound",
];

/**
 * Ids of this period and of the one before. Hashes: session → number of ids, session and id →
 * `{seq}-{run} {time} {ordinal} {digest}`, `r`, ordinal modulo 1,000 and session → id.
 */
const IDS = [":ids", ":ids:old"];

/**
 * The room's keys, as every script gets them. In its slot is also `{head}:events`, a list: what `_events` is
 * to hear, `{n} {event} {members} {name}{user}`. Elsewhere are `{prefix}:rooms`, the sorted set of hosted rooms, and
 * `{prefix}:nodes`, a sorted set: node → Unix ms at which its lease ends.
 */
export function keysOf(prefix: string, room: string): string[] {
  return [...KEPT, ...IDS].map((end) => `${prefix}:{${room}}${end}`);
}

/** Gives `now`, in Unix ms. */
export const NOW = `
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)`;

/**
 * Opens the room: reads its head, or creates it. If another server process (by run id) has the room
 * than before, a new epoch begins, with the numbers going on, unless both processes promise that
 * nothing acked is lost. `lineage` is `{epoch}={seq} …`: the last few epochs and the seq at which
 * each ended. ARGV: run id, whether the server is durable (1 or 0), ms to keep the room.
 */
export const OPEN = `${NOW}
local head, log, members, nodes, state, revs, ends, bound, ids, old = unpack(KEYS)
local run, durable, ttl = ARGV[1], ARGV[2], ARGV[3]
local h = call('HMGET', head,
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
    call('UNLINK', state, revs, ends, bound)
    call('HDEL', head, 'n', 'rev', 'forgotten', 'bytes')
  end
  runs = runs + 1
  call('HSET', head, 'epoch', epoch, 'seq', seq, 'run', run, 'durable', durable,
    'runs', runs, 'lineage', lineage)
  call('PEXPIRE', head, ttl)
end
local function keep(ms)
  for i = 1, ${KEPT.length} do call('PEXPIRE', KEYS[i], ms or ttl) end
end
local function range(first, last) return call('XRANGE', log, first, last) end
if not epoch then
  call('UNLINK', log, ids, old)
  begin(true)
elseif h[3] ~= run then
  begin(h[4] ~= '1' or durable ~= '1')
elseif h[4] ~= durable then
  call('HSET', head, 'durable', durable)
end`;

"""What Redis does in one step. Each script touches the keys of one room, and is told all of them.

A room is the hash `room`; the fields of one of its histories end in a colon and its epoch. Beside it are, by epoch, the
stream `log`, the hashes `origins` and `owners`, and as lists of pieces the two newest checkpoints, `a` and `b`, the
landmarks, `at-` and their position, and the `attribution`.

Scripts read every key they will write to before they write: what fails, for its memory is full, it may not write, or a
foreign writer has put something else there, fails before it has changed anything.
"""

from __future__ import annotations

from collab.connection import Script

MAX_ORIGINS = 256  # that a room knows; the half that was silent longest goes
TRIMMED_AT_ONCE = 500  # entries, so that others are served in between

APPEND = Script(
    """
local room, log, origins, owners, waiting = unpack(KEYS)
local format, epoch = ARGV[1], ARGV[2]
local found = redis.call('HMGET', room, 'format', 'live', 'deleted:' .. epoch, 'position:' .. epoch,
    'changed:' .. epoch)
if found[1] and tonumber(found[1]) > tonumber(format) then return 'newer' end
if found[2] ~= epoch and (found[2] or found[3]) then return 'over' end
local is_new = not found[2]
if is_new and redis.call('EXISTS', log, origins) > 0 then return 'foreign' end

local function whole(number) return string.format('%.0f', number) end
local seen = {}
for at = 3, #ARGV, 6 do seen[ARGV[at]] = false end
for origin in pairs(seen) do
    local last = redis.call('HGET', origins, origin)
    seen[origin] = last and tonumber(string.match(last, '^%d+'))
end
if is_new then
    redis.call('HSET', room, 'format', format, 'live', epoch, 'created:' .. epoch, ARGV[6], 'position:' .. epoch, 0)
    if redis.call('EXISTS', waiting) == 1 then
        redis.call('RENAME', waiting, owners)
        redis.call('PERSIST', owners)
    end
end

local position, changed, bytes = tonumber(found[4] or 0), tonumber(found[5] or 0), 0
local answers = {is_new and 1 or 0}
for at = 3, #ARGV, 6 do
    local origin, first, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local milliseconds, record, abouts = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    local known = math.max(0, (seen[origin] or first - 1) + 1 - first)
    if known < count then
        position = position + count - known
        local fields = {'m', milliseconds, 'e', record}
        if known > 0 then fields[5], fields[6] = 's', whole(known) end
        if abouts ~= '' then fields[#fields + 1], fields[#fields + 2] = 'a', abouts end
        redis.call('XADD', log, whole(position) .. '-0', unpack(fields))
        seen[origin] = first + count - 1
        redis.call('HSET', origins, origin, whole(seen[origin]) .. ' ' .. whole(position))
        bytes = bytes + #record
    end
    changed = math.max(changed, tonumber(milliseconds))
    answers[#answers + 1] = known == 0 and position or 0
end
redis.call('HSET', room, 'position:' .. epoch, whole(position), 'changed:' .. epoch, whole(changed))
redis.call('HINCRBY', room, 'bytes:' .. epoch, bytes)
"""
    f"""
if redis.call('HLEN', origins) > {MAX_ORIGINS} then
    local all, places = redis.call('HGETALL', origins), {{}}
    for at = 1, #all, 2 do places[#places + 1] = {{tonumber(string.match(all[at + 1], '%d+$')), all[at]}} end
    table.sort(places, function(one, other) return one[1] < other[1] end)
    for at = 1, #places - {MAX_ORIGINS // 2} do redis.call('HDEL', origins, places[at][2]) end
end
return answers
"""
)

# A fence (the time of Redis in microseconds, and behind all that count) and the room as it is.
OPEN = Script(
    """
local time, live = redis.call('TIME'), redis.call('HGET', KEYS[1], 'live')
local fence = time[1] * 1000000 + time[2]
if live then
    fence = math.max(fence, tonumber(redis.call('HGET', KEYS[1], 'fence:' .. live) or 0) + 1)
end
return {fence, redis.call('HGETALL', KEYS[1])}
"""
)

READ = Script("return redis.call('HGETALL', KEYS[1])")

# Entries from one place on, until they are enough in number or bytes; 1 where the log goes on.
PAGE = Script(
    """
local start, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local found, bytes, count = {}, 0, 1
while #found < most and bytes < most_bytes do
    local some = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', count)
    for _, entry in ipairs(some) do
        found[#found + 1] = entry
        for _, word in ipairs(entry[2]) do bytes = bytes + #word end
    end
    if #some < count then return {0, found} end
    start = '(' .. some[#some][1]
    count = math.min(2 * count, 64)
end
return {1, found}
"""
)

# The owner that came first stays. Before there is a room they wait for it.
BIND = Script(
    """
local room, owners, waiting = unpack(KEYS)
local live = redis.call('HGET', room, 'live')
if (live or '') ~= ARGV[1] then return 'again' end
local place = live and owners or waiting
for at = 3, #ARGV, 2 do redis.call('HSETNX', place, ARGV[at], ARGV[at + 1]) end
if not live then redis.call('EXPIRE', waiting, ARGV[2]) end
return 1
"""
)

CREATE = Script(
    """
local room, log, owners, waiting = unpack(KEYS)
local format, epoch, deletions, now, metadata, history = unpack(ARGV)
local found = redis.call('HMGET', room, 'format', 'live', 'deleted:' .. epoch, 'deletions')
if found[1] and tonumber(found[1]) > tonumber(format) then return 'newer' end
if found[2] then return 'there' end
if found[3] then return 'over' end
if redis.call('EXISTS', log) == 1 then return 'foreign' end
if deletions ~= '' and deletions ~= (found[4] or '0') then return 'again' end
redis.call('HSET', room, 'format', format, 'live', epoch, 'created:' .. epoch, now, 'changed:' .. epoch, now,
    'position:' .. epoch, 0, 'bytes:' .. epoch, 0, 'metadata:' .. epoch, metadata)
if history ~= '' then redis.call('HSET', room, 'history:' .. epoch, history) end
if redis.call('EXISTS', waiting) == 1 then
    redis.call('RENAME', waiting, owners)
    redis.call('PERSIST', owners)
end
return 1
"""
)

# Sets one field of the live history, or takes it away where the value is empty.
TELL = Script(
    """
local found = redis.call('HMGET', KEYS[1], 'format', 'live')
if found[1] and tonumber(found[1]) > tonumber(ARGV[1]) then return 'newer' end
if not found[2] then return 'none' end
local field = ARGV[2] .. ':' .. found[2]
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], field) else redis.call('HSET', KEYS[1], field, ARGV[3]) end
return redis.call('HGETALL', KEYS[1])
"""
)

# Where the log of the live history ends; nothing where none lives.
END = Script(
    """
local live = redis.call('HGET', KEYS[1], 'live')
return live and redis.call('HGET', KEYS[1], 'position:' .. live)
"""
)

REJECT = Script(
    """
local found = redis.call('HMGET', KEYS[1], 'format', 'live')
if found[1] and tonumber(found[1]) > tonumber(ARGV[1]) then return 'newer' end
if not found[2] then return 'none' end
local field = 'rejected:' .. found[2]
redis.call('HSET', KEYS[1], field, (redis.call('HGET', KEYS[1], field) or '') .. ARGV[2] .. '\\n')
return 1
"""
)

# What begins the scripts that take something made of the log. `mark` is of the last entry that its maker has seen: where
# that is another one by now, the log has been lost and begun anew.
_MADE = """
local room, log, upload = unpack(KEYS)
local format, epoch, position, fence, about, count, last, mark = unpack(ARGV)
local found = redis.call('HMGET', room, 'format', 'live', 'fence:' .. epoch, 'position:' .. epoch, 'new:' .. epoch,
    'old:' .. epoch, 'landmarks:' .. epoch, 'attribution:' .. epoch)
if found[1] and tonumber(found[1]) > tonumber(format) then return 'newer' end
if found[2] ~= epoch or tonumber(fence) < tonumber(found[3] or 0) then return 0 end
if tonumber(position) > tonumber(found[4] or 0) then return 0 end
if mark ~= '' then
    local entry = redis.call('XRANGE', log, last .. '-0', last .. '-0')[1]
    local is_same = false
    for at = 1, entry and #entry[2] or 0, 2 do
        if entry[2][at] == 'e' then is_same = string.sub(entry[2][at + 1], 1, 4) == mark end
    end
    if not is_same then return 0 end
end
if redis.call('LLEN', upload) ~= tonumber(count) then return 0 end
"""

# The pieces were put under `upload`; they take the place of the older checkpoint. That moves to `landmark` where it is
# one, which its caller has seen: `line` is then what is to be said of it, and `old` what was said before.
CHECKPOINT = Script(
    _MADE
    + """
local a, b, landmark, old, line = KEYS[4], KEYS[5], KEYS[6], ARGV[9], ARGV[10]
local newest = found[5]
local start = newest and tonumber(string.match(newest, '^%a (%d+)')) or 0
if tonumber(position) <= start or (found[6] or '') ~= old then return 0 end
local place = newest and string.sub(newest, 1, 1) == 'a' and 'b' or 'a'
redis.call('HSET', room, 'new:' .. epoch, place .. ' ' .. position .. ' ' .. about, 'fence:' .. epoch, fence)
if newest then redis.call('HSET', room, 'old:' .. epoch, newest) end
if line ~= '' and redis.call('EXISTS', place == 'a' and a or b) == 1 then
    redis.call('RENAME', place == 'a' and a or b, landmark)
    redis.call('HSET', room, 'landmarks:' .. epoch, (found[7] or '') .. line .. '\\n')
end
redis.call('PERSIST', upload)
redis.call('RENAME', upload, place == 'a' and a or b)
return 1
"""
)

# In place of the one before, unless that reaches as far, or is what the caller has found damaged.
ATTRIBUTE = Script(
    _MADE
    + """
local attribution, damaged, known = KEYS[4], ARGV[9], found[8]
local reached = known and known ~= damaged and tonumber(string.match(known, '^%d+')) or 0
if tonumber(position) <= reached then return 0 end
redis.call('HSET', room, 'attribution:' .. epoch, about)
redis.call('PERSIST', upload)
redis.call('RENAME', upload, attribution)
return 1
"""
)

# Forgets entries that are older, as far as the older checkpoint and the attribution cover them, and landmarks before the
# last of them: their keys follow the log's. 1 when there may be more.
TRIM = Script(
    f"""
local room, log = unpack(KEYS)
local epoch, now = ARGV[2], tonumber(ARGV[3])
local found = redis.call('HMGET', room, 'format', 'live', 'history:' .. epoch, 'old:' .. epoch,
    'attribution:' .. epoch, 'landmarks:' .. epoch)
if found[1] and tonumber(found[1]) > tonumber(ARGV[1]) then return 0 end
if found[2] ~= epoch or not found[3] or not found[4] then return 0 end
local covered, before = string.match(found[4], '^%a (%d+)'), now - 1000 * tonumber(found[3])
local attributed = found[5] and string.match(found[5], '^%d+')
if attributed and tonumber(attributed) < tonumber(covered) then covered = attributed end
local entries = redis.call('XRANGE', log, '-', covered .. '-0', 'COUNT', {TRIMMED_AT_ONCE})
local last, bytes, count = false, 0, 0
for _, entry in ipairs(entries) do
    local milliseconds, size = 0, 0
    for at = 1, #entry[2], 2 do
        if entry[2][at] == 'm' then milliseconds = tonumber(entry[2][at + 1]) or 0 end
        if entry[2][at] == 'e' then size = #entry[2][at + 1] end
    end
    if milliseconds >= before then break end
    last, bytes, count = string.match(entry[1], '^%d+'), bytes + size, count + 1
end
if not last then return 0 end
redis.call('XTRIM', log, 'MINID', string.format('%.0f', tonumber(last) + 1) .. '-0')
redis.call('HINCRBY', room, 'bytes:' .. epoch, -bytes)
local passed, kept = {{}}, ''
for at = 3, #KEYS do
    local position = string.match(KEYS[at], '%d+$')
    if tonumber(position) < tonumber(last) then
        redis.call('UNLINK', KEYS[at])
        passed[position] = true
    end
end
for line, position in string.gmatch(found[6] or '', '((%S+)[^\\n]*\\n)') do
    if not passed[string.match(position, '%d+$')] then kept = kept .. line end
end
if kept ~= '' then redis.call('HSET', room, 'landmarks:' .. epoch, kept)
elseif found[6] then redis.call('HDEL', room, 'landmarks:' .. epoch) end
return count == {TRIMMED_AT_ONCE} and 1 or 0
"""
)

# Leaves a tombstone where a room lives; with `is_purged` the time of all that was kept of the name has come.
DELETE = Script(
    """
local room, waiting = unpack(KEYS)
local format, now, purge, is_purged = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local all = redis.call('HGETALL', room)
local found = {}
for at = 1, #all, 2 do found[all[at]] = all[at + 1] end
if found['format'] and tonumber(found['format']) > tonumber(format) then return 'newer' end
redis.call('DEL', waiting)
local live = found['live']
if live then
    local number = redis.call('HINCRBY', room, 'deletions', 1)
    redis.call('HSET', room, 'deleted:' .. live, number .. ' ' .. now, 'purge:' .. live, purge)
    redis.call('HDEL', room, 'live')
end
if is_purged == '1' then
    for field in pairs(found) do
        local epoch = string.match(field, '^purge:(.*)$')
        if epoch then redis.call('HSET', room, 'purge:' .. epoch, 0) end
    end
    if live then redis.call('HSET', room, 'purge:' .. live, 0) end
end
return 1
"""
)

RESTORE = Script(
    """
local room = KEYS[1]
local format, epoch, now = unpack(ARGV)
local found = redis.call('HMGET', room, 'format', 'live', 'purge:' .. epoch)
if found[1] and tonumber(found[1]) > tonumber(format) then return 'newer' end
if found[2] then return 'there' end
if not found[3] or tonumber(found[3]) <= tonumber(now) then return 'none' end
local time = redis.call('TIME')
redis.call('HSET', room, 'live', epoch, 'fence:' .. epoch,
    string.format('%.0f', time[1] * 1000000 + time[2]))
redis.call('HDEL', room, 'deleted:' .. epoch, 'purge:' .. epoch)
return redis.call('HGETALL', room)
"""
)

# Of a deleted history whose time has come only the tombstone stays; nor does what a replica of the version before, which
# knows of fewer keys, has left of one.
PURGE = Script(
    """
local room = KEYS[1]
local format, epoch, now = unpack(ARGV)
local found = redis.call('HMGET', room, 'format', 'live', 'purge:' .. epoch)
if found[1] and tonumber(found[1]) > tonumber(format) then return 0 end
if found[2] == epoch or (found[3] and tonumber(found[3]) > tonumber(now)) then return 0 end
for at = 2, #KEYS do redis.call('UNLINK', KEYS[at]) end
for _, field in ipairs({'created', 'changed', 'position', 'bytes', 'metadata', 'history', 'fence', 'new', 'old',
    'landmarks', 'attribution', 'rejected', 'purge'}) do
    redis.call('HDEL', room, field .. ':' .. epoch)
end
return 1
"""
)

REMEMBER = Script(
    """
local kept, order, size = unpack(KEYS)
local key, milliseconds, record, before, most, most_bytes = unpack(ARGV)
local function forget(one)
    redis.call('DECRBY', size, redis.call('HSTRLEN', kept, one))
    redis.call('HDEL', kept, one)
    redis.call('ZREM', order, one)
end
if key ~= '' then
    local before_bytes = redis.call('HSTRLEN', kept, key)
    redis.call('HSET', kept, key, record)
    redis.call('ZADD', order, milliseconds, key)
    redis.call('INCRBY', size, #record - before_bytes)
end
for _, one in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', '(' .. before, 'LIMIT', 0, 1000)) do forget(one) end
while redis.call('ZCARD', order) > tonumber(most)
    or (redis.call('ZCARD', order) > 0 and tonumber(redis.call('GET', size) or 0) > tonumber(most_bytes)) do
    forget(redis.call('ZRANGE', order, 0, 0)[1])
end
return 1
"""
)

# Notes that a process loads the room; returns who has noted that before.
BEGIN_LOAD = Script(
    """
local found = redis.call('HKEYS', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return found
"""
)

"""What Redis does in one step, and how an entry looks on the way."""

from __future__ import annotations

from collab.bus.base import KEPT_ENTRIES, KEPT_SECONDS, MAX_BODY_BYTES, Published
from collab.bus.keys import Names
from collab.bus.wire import pack
from collab.connection import Script

# The numbering outlives the stream: a room that was quiet goes on counting, and nobody need compare documents. Both may
# go at any time: whoever lacks an entry then finds fewer than were counted, or another epoch, and never silence.
_NUMBERING_SECONDS = 3600.0

# A stream holds about as many bytes at most, whatever its entries weigh: none of them is the only copy of anything.
_KEPT_BYTES = 16 << 20

# Without flags, Redis refuses it at once where it could not be finished: at full memory, and on a follower. The numbering
# belongs to one life of one server (`run`): after a restart, or on a follower that has taken over, some of what was
# counted may be gone, so no number may come a second time in the same epoch. Whatever a stranger has left under our keys
# is removed, and counting begins anew.
PUBLISH = Script(
    """#!lua
if #ARGV < 6 then return 0 end
local run, epoch, most = ARGV[1], ARGV[2], ARGV[3]
local head = redis.pcall('HMGET', KEYS[1], 'epoch', 'number', 'run')
local number = not head.err and head[3] == run and tonumber(head[2] or '')
if number and number >= 0 and number < 1e14 and number % 1 == 0
    and #(head[1] or '') <= 32 and string.match(head[1] or '', '^%w+$') then
  epoch = head[1]
else
  redis.call('DEL', KEYS[1], KEYS[2])
  number = 0
end
for i = 6, #ARGV do
  number = number + 1
  local added = redis.pcall(
    'XADD', KEYS[2], 'MAXLEN', '~', most, string.format('%.0f-0', number), 'b', ARGV[i])
  if type(added) == 'table' and added.err then
    redis.call('DEL', KEYS[1], KEYS[2])
    epoch, number = ARGV[2], 1
    redis.call('XADD', KEYS[2], '1-0', 'b', ARGV[i])
  end
  redis.call('SPUBLISH', KEYS[3], string.format('e%s:%.0f:', epoch, number) .. ARGV[i])
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'number', string.format('%.0f', number), 'run', run)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return number
"""
)

# Fields are `<milliseconds>:<info>`; what is not, or is old or long, goes, and all when there are more than replicas.
BEAT = Script(
    """#!lua
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most = tonumber(ARGV[3])
local said = string.format('%.0f:', now) .. ARGV[2]
local set = redis.pcall('HSET', KEYS[1], ARGV[1], said)
if (type(set) == 'table' and set.err) or redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], ARGV[1], said)
end
redis.call('PEXPIRE', KEYS[1], most)
local all, alive = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local at, info = string.match(all[i + 1], '^(%d+):(.*)$')
  if at and math.abs(now - tonumber(at)) <= most and #info <= tonumber(ARGV[5]) then
    alive[#alive + 1] = all[i]
    alive[#alive + 1] = info
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return alive
"""
)

# Whatever a stranger has left under the key without an end gets one.
CLAIM = Script(
    """#!lua
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2], 'LT')
return 0
"""
)

RENEW = Script(
    """#!lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)

RELEASE = Script(
    """#!lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)


def publish_command(
    names: Names, bodies: list[bytes], *, run: str, epoch: str
) -> bytes:
    """The script for some entries of a room; the epoch is used if counting begins anew."""
    largest = max(map(len, bodies), default=1)
    return pack(
        *("EVALSHA", PUBLISH.sha, 3, names.numbering, names.stream, names.channel),
        *(run, epoch, max(1, min(KEPT_ENTRIES, _KEPT_BYTES // max(largest, 1)))),
        *(int(_NUMBERING_SECONDS * 1000), int(KEPT_SECONDS * 1000)),
        *bodies,
    )


def say_command(names: Names, body: bytes) -> bytes:
    """A word to everybody on the channel."""
    return pack("SPUBLISH", names.channel, b"w" + body)


def decode(message: bytes) -> Published | bytes | None:
    """An entry, a word, or None when none of us has written this."""
    kind, rest = message[:1], message[1:]
    if kind == b"w":
        return rest if len(rest) <= MAX_BODY_BYTES else None
    epoch, _, rest = rest.partition(b":")
    number, colon, body = rest.partition(b":")
    if kind != b"e" or not colon or len(body) > MAX_BODY_BYTES:
        return None
    return entry(epoch, number, body)


def entry(epoch: bytes, number: bytes, body: bytes) -> Published | None:
    """Checked, for anybody who knows the password may have written it."""
    if not epoch.isalnum() or not number.isdigit():
        return None
    if len(epoch) > 32 or len(number) > 15 or len(body) > MAX_BODY_BYTES:
        return None
    return Published(epoch.decode(), int(number), body)

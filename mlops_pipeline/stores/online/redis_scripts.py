"""What the Redis server itself decides, so that two writers may overlap: Lua scripts.

Belongs here: the scripts, and the layout of what they compare. Each runs alone on the server, so
none takes more than a few hundred records at once.
"""

# KEYS: one of each record. ARGV: its envelope with the blob, and its life in milliseconds or 0.
# The envelope begins with two equal copies of the feature time and expiry; where they differ the
# held record is damaged, and any other replaces it.
WRITE_RECORDS = """
local written = 0
for number, key in ipairs(KEYS) do
  local value, life = ARGV[2 * number - 1], ARGV[2 * number]
  local held = redis.call('GETRANGE', key, 0, 31)
  local is_whole = #held == 32 and held:sub(1, 16) == held:sub(17, 32)
  if not is_whole or struct.unpack('>i8', held) <= struct.unpack('>i8', value) then
    if life == '0' then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'PX', life)
    end
    written = written + 1
  end
end
return written
"""

# KEYS: any records. ARGV: now in microseconds. Damaged ones stay: their expiry is not known.
PURGE_RECORDS = """
local removed = 0
for _, key in ipairs(KEYS) do
  local held = redis.call('GETRANGE', key, 0, 31)
  if #held == 32 and held:sub(1, 16) == held:sub(17, 32)
      and struct.unpack('>i8', held, 9) <= tonumber(ARGV[1]) then
    removed = removed + redis.call('UNLINK', key)
  end
end
return removed
"""

# KEYS: the events of one entity by time, and the set of what is known. ARGV: the time to keep
# after, in microseconds; milliseconds that the keys outlive their newest event; then an identity,
# event time and sealed event each. What an entity without further events holds goes when its
# newest would.
APPEND_EVENTS = """
local added = 0
for number = 3, #ARGV, 3 do
  if redis.call('SADD', KEYS[2], ARGV[number]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[number + 1], ARGV[number + 2])
    added = added + 1
  end
end
for _, sealed in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])) do
  local length = struct.unpack('>I4', sealed, 5)
  redis.call('SREM', KEYS[2], sealed:sub(9, 8 + length))
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if newest[2] then
  local left = math.ceil((tonumber(newest[2]) - tonumber(ARGV[1])) / 1000) + tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', left))
end
return added
"""

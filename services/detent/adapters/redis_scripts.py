"""Holds the one script that writes market data into Redis, atomically and in one order.

The log is one stream that every replica tails; its entries are numbered without a hole, under a
generation that begins when the log does. Beside it, each symbol and kind of data has a stream of
its own, so that a busy symbol cannot push out the bars of a quiet one. These only go forward in
event time: what repeats or comes late is in the log, for all replicas to judge alike, and uses up
no room where warm-up reads.
"""

APPEND = """
-- KEYS: the log, the set of streams, then the streams that the events go to.
-- ARGV: nonce, entries of the log, streams at most, then per event:
--       index of its key, event time, entries of its stream, '1' if times must differ, payload.
local log, streams = KEYS[1], KEYS[2]
local nonce, log_max, streams_max = ARGV[1], ARGV[2], tonumber(ARGV[3])

local unknown = {}
for index = 3, #KEYS do
  if redis.call('SISMEMBER', streams, KEYS[index]) == 0 then unknown[#unknown + 1] = KEYS[index] end
end
if #unknown > 0 and redis.call('SCARD', streams) + #unknown > streams_max then
  return redis.error_reply('STREAMS as many as may be held')
end

local generation, number, before = nil, 0, ''
local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if newest then
  generation, number = string.match(newest[1], '^(%d+)-(%d+)$')
  number = tonumber(number)
  before = newest[1] .. ':' .. newest[2][2]
else
  local now = redis.call('TIME')
  generation = now[1] .. string.format('%06d', now[2])
end

for _, key in ipairs(unknown) do redis.call('SADD', streams, key) end
local id = nil
for at = 4, #ARGV, 5 do
  local key, ts, length = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local strict, payload = ARGV[at + 3] == '1', ARGV[at + 4]
  number = number + 1
  id = generation .. '-' .. string.format('%d', number)
  redis.call('XADD', log, 'MAXLEN', '~', log_max, id, 'n', nonce, 'e', payload)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local ordinal, forward = 1, true
  if last then
    local last_ts = tonumber(last[2][4])
    ordinal = tonumber(last[2][2]) + 1
    forward = ts > last_ts or (not strict and ts == last_ts and payload ~= last[2][6])
  end
  if forward then
    redis.call('XADD', key, 'MAXLEN', '=', length, id,
      'k', string.format('%d', ordinal), 't', ARGV[at + 1], 'e', payload)
  end
end
return {before, id .. ':' .. nonce}
"""

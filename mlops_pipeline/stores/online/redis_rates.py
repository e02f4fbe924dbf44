"""Requests that all processes of a service answered to each client, counted on a Redis server.

One token bucket for each client, by the server's own clock: nobody's clock has to be right.
"""

from collections.abc import Mapping

from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.online.redis_server import Command, RedisServer

PREFIX = "mlops-rates:"
TIMEOUT_MS = 1_000  # nobody waits for it
SETTLE = """
local time = redis.call('TIME')
local now, capacity = time[1] + time[2] / 1e6, tonumber(ARGV[1])
local left = {}
for place, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'tokens', 'at')
  local tokens, at = tonumber(found[1]) or capacity, tonumber(found[2]) or now
  tokens = math.min(capacity, tokens + math.max(0, now - at) * capacity / 60) - ARGV[place + 1]
  redis.call('HSET', key, 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', key, 120)
  left[place] = tostring(tokens)
end
return left
"""


class SharedRates(Closing):
    """The buckets of all processes."""

    def __init__(self, url: str) -> None:
        self._server = RedisServer(url, timeout_ms=TIMEOUT_MS)

    def exchange(self, taken: Mapping[str, int], per_minute: int) -> dict[str, float]:
        """Take what was taken here out of the buckets; return what is left in each."""
        keys = [PREFIX + client for client in taken]
        command: Command = ("EVAL", SETTLE, len(keys), *keys, per_minute, *taken.values())
        (left,) = self._server.send([command])
        return {client: float(tokens) for client, tokens in zip(taken, left, strict=True)}

    def close(self) -> None:
        """Hang up."""
        self._server.close()

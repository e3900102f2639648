"""What the parts of the Redis store share."""

from __future__ import annotations

from storage import StoreURL
from storage.base import Store
from storage.records import to_bytes
from storage.redis_store.client import Client
from storage.redis_store.keys import Keys
from storage.redis_store.known_config import KnownConfig
from storage.redis_store.registry import Registry
from storage.redis_store.result_index import ResultIndex
from storage.redis_store.result_reading import Expiries
from storage.redis_store.scan import KeyScan
from storage.redis_store.survey import Survey


class RedisPart(Store):
    """The connection and what has been learnt so far."""

    backend = "redis"
    can_expire_natively = True
    has_index = True
    has_bus = True
    metrics_lag = 0

    def __init__(self, where: StoreURL) -> None:
        self.address = where.safe
        self._where = where
        self._client = Client(where)
        self._keys = Keys(to_bytes(where.prefix))
        self._expiries = Expiries(self._client)
        self._index = ResultIndex(self._client, self._keys, self._expiries)
        self._registry = Registry(self._client, self._keys)
        self._config = KnownConfig()
        self._config_scan = KeyScan(self._client, self._keys.all_of(self._keys.config_head))
        self._survey = Survey(self._client, self._keys, self._index, self._registry)

    def connect(self) -> None:
        # A read that every user of this store may do; PING can be forbidden.
        self._client.call("EXISTS", self._keys.topics)

    def close(self) -> None:
        self._client.close()
        self.forget()

    def forget(self) -> None:
        """All that has been learnt."""
        self._index.reset()
        self._registry.reset()
        self._survey.reset()
        self._config.reset()

"""OmniDaemon's data in Redis. Each part of the contract has its file; this puts them together."""

from __future__ import annotations

from storage.redis_store.changes import ChangePart
from storage.redis_store.inspect import InspectPart
from storage.redis_store.saving import SavingPart
from storage.redis_store.staging import BackupPart

__all__ = ["RedisStore"]


class RedisStore(ChangePart, InspectPart, BackupPart, SavingPart):
    """`redis://`, `rediss://` and `unix://` stores."""

    def __repr__(self) -> str:
        return f"<RedisStore {self.address}>"

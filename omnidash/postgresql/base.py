"""Django's PostgreSQL backend, but no page waits longer than its patience for a frozen server.

Timeouts of the server's own do not help when it is the server that hangs.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from omnidash.database import STATEMENT_SECONDS
from storage import patience

_LONGEST = STATEMENT_SECONDS + 5  # seconds that who asks outside of a page waits for an answer
# What is asked at the very end of a page's time, when a store has taken it all.
_SHORTEST = 0.2


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if patience.is_over():
            raise self.Database.OperationalError("it did not answer in time")
        connection: Any = super().get_new_connection(conn_params)
        connection.wait = self._bounded(connection)
        return connection

    def _bounded(self, connection: Any) -> Any:
        """The connection's `wait`, through which all its questions go, with an end."""
        wait = connection.wait

        def bounded(answer: Any, *args: Any, **options: Any) -> Any:
            seconds = max(_SHORTEST, min(_LONGEST, patience.left()))
            try:
                return wait(answer, *args, **{"timeout": seconds, **options})
            except self.Database.OperationalError as error:
                status = connection.info.transaction_status
                if status is not type(status).ACTIVE:
                    raise
                # It still owes an answer, which nobody could tell from that to a next question.
                connection.close()
                raise self.Database.OperationalError("it did not answer in time") from error

        return bounded

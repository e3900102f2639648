"""Why Redis refuses or does not answer, in plain words."""

from __future__ import annotations

import errno
import socket
import ssl

REFUSALS = {
    "READONLY": "is a read-only replica",
    "OOM": "is out of memory and refuses writes (maxmemory, noeviction)",
    "MISCONF": "refuses writes because it cannot save to disk",
    "NOREPLICAS": "refuses writes because too few replicas are connected",
}
OUTAGES = {
    "LOADING": "is loading its data",
    "BUSY": "is busy running a script",
    "MASTERDOWN": "lost its master and serves no stale data (MASTERDOWN)",
    "CLUSTERDOWN": "is a cluster that is down",
    "MOVED": "is a node of a Redis Cluster, which OmniDaemon does not use",
}
_SYSTEM = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENOENT: "there is no such socket",
    errno.EACCES: "permission denied on the socket",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ECONNRESET: "the connection was reset",
    errno.EMFILE: "this process has too many open files",
}


def system_cause(error: BaseException) -> str:
    """From the operating system's error that the driver wrapped."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, socket.gaierror):
            return "the host name is unknown"
        if isinstance(found, ssl.SSLError):
            return f"TLS failed ({found.reason or 'no reason given'})"
        if isinstance(found, OSError) and found.errno in _SYSTEM:
            return _SYSTEM[found.errno]
        found = found.__context__
    return "the connection was lost"

"""How OmniDaemon names its keys in Redis, as bytes: what lies there need not be UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GLOB = re.compile(rb"([\\*?\[\]])")

# What follows a prefix. A key such as omni:result:eu:config:x may so be a result of the id
# "eu:config:x", or belong to another OmniDaemon whose prefix is "omni:result:eu".
_SHAPE = rb"(?:(?:topics|results:index|metrics:stream)\Z|(?:agent|agents:topic|result|config):)"
_SHAPE_AT = re.compile(_SHAPE)
_SHAPE_ANYWHERE = re.compile(rb"(?:\A|:)" + _SHAPE)
_MARK = re.compile(rb"(?:\A|:)(?:topics|results:index|metrics:stream)\Z")

# Configuration of OmniDaemon itself, which may end in any topic or name.
OWN_CONFIG = (b"_subscription_active:", b"supervisor:", b"_omnidaemon_", b"_supervisor_registry")


def escape_glob(text: bytes) -> bytes:
    """A prefix may hold characters that MATCH would take for wildcards."""
    return _GLOB.sub(rb"\\\1", text)


def may_be_anothers(rest: bytes) -> bool:
    """Whether what follows `{prefix}:{kind}:` looks like the key of another OmniDaemon, whose
    prefix is ours and more, however much more."""
    return _SHAPE_ANYWHERE.search(rest) is not None


def config_may_be_anothers(name: bytes) -> bool:
    """The same of a configuration key, which nothing but its name can tell from another's."""
    return not name.startswith(OWN_CONFIG) and may_be_anothers(name)


def end_of_mark(name: bytes) -> int | None:
    """Where the neighbour's prefix ends in a name that ends like a key of every OmniDaemon."""
    found = _MARK.search(name)
    return None if found is None else found.start() + name.startswith(b":", found.start())


def is_under(name: bytes, neighbours: Iterable[bytes]) -> bool:
    """Whether it is the key of one of these neighbours, given by what they add to our head."""
    return not name.startswith(OWN_CONFIG) and any(
        name.startswith(added) and _SHAPE_AT.match(name, len(added)) for added in neighbours
    )


class Keys:
    """The names of one prefix."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.head = prefix + b":"
        self.topics = self.head + b"topics"
        self.agent_head = self.head + b"agent:"
        self.topic_head = self.head + b"agents:topic:"
        self.result_head = self.head + b"result:"
        self.results_index = self.head + b"results:index"
        self.metrics = self.head + b"metrics:stream"
        self.config_head = self.head + b"config:"
        self.everything = escape_glob(self.head) + b"*"

    def all_of(self, head: bytes) -> bytes:
        """The MATCH pattern of a head; callers re-check each key, since globs are not trusted."""
        return escape_glob(head) + b"*"

    def agent(self, topic: bytes, name: bytes) -> bytes:
        """Ambiguous where a part holds a colon: (a:b, c) and (a, b:c) are one key."""
        return self.agent_head + topic + b":" + name

    def topic(self, topic: bytes) -> bytes:
        return self.topic_head + topic

    def result(self, task_id: bytes) -> bytes:
        return self.result_head + task_id

    def config(self, key: bytes) -> bytes:
        return self.config_head + key

    def subscription(self, topic: bytes, name: bytes) -> bytes:
        return self.config_head + b"_subscription_active:group:" + topic + b":" + name

    def supervisor(self, name: bytes) -> bytes:
        return self.config_head + b"supervisor:" + name

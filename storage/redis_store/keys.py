"""How OmniDaemon names its keys in Redis, as bytes: what lies there need not be UTF-8."""

from __future__ import annotations

import re

_GLOB = re.compile(rb"([\\*?\[\]])")

# What may follow a prefix. A key such as omni:result:config:x may so be a result called "config:x"
# or belong to another OmniDaemon whose prefix is "omni:result".
_SHAPES = (b"topics", b"agent:", b"agents:topic:", b"result:", b"results:index", b"config:",
           b"metrics:stream")  # fmt: skip


def escape_glob(text: bytes) -> bytes:
    """A prefix may hold characters that MATCH would take for wildcards."""
    return _GLOB.sub(rb"\\\1", text)


def may_be_anothers(rest: bytes) -> bool:
    """Whether what follows `{prefix}:{kind}:` looks like the key of another OmniDaemon."""
    return rest.startswith(_SHAPES)


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

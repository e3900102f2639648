"""OmniDaemon's own configuration keys and what they do (omnidaemon: agent_runner/runner.py,
supervisor_storage.py, event_bus/redis_stream_bus.py)."""

from __future__ import annotations

from omnidash.text import MASK, is_secret, masked_text

SUPERVISOR = "supervisor:"
SUBSCRIPTION = "_subscription_active:group:"
_KEYS = {
    "_omnidaemon_start_time": "When the first agent registered; a clean stop empties it.",
    "_omnidaemon_runner_id": "The runner that set the start time; a clean stop empties it.",
    "_supervisor_registry": "Names of the agents that run in supervised processes.",
}
_PREFIXES = {
    "_subscription_active:": "Consumers of this group stop when it is false or gone.",
    SUPERVISOR: "What this agent's supervisor last said of itself.",
}


def beginning_of(key: str, text: str) -> str:
    """How a value begins, its secrets hidden. What cannot be parsed cannot be masked key by key,
    and a system key ends in the name of an agent, which says nothing of its value."""
    beginning = text[:2000]
    if is_secret("" if meaning_of(key) else key) or is_secret(beginning):
        return MASK
    return masked_text(beginning)


def meaning_of(key: str) -> str:
    """Empty for a key that is not OmniDaemon's own."""
    if key in _KEYS:
        return _KEYS[key]
    return next((what for start, what in _PREFIXES.items() if key.startswith(start)), "")

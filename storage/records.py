"""What OmniDaemon stores, read tolerantly: whatever is there becomes a record, never an exception.

Times are Unix seconds as float, sizes are bytes, durations are seconds. Text comes from a store and
is hostile: it may hold any character, and bytes that are not UTF-8 appear as surrogate escapes
(PEP 383), so that `to_bytes(to_text(raw)) == raw` and every record stays addressable.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

_ANY_DIGIT = bytes.maketrans(b"123456789", b"000000000")
LATEST = 4102444800.0  # 2100-01-01: later is a wrong unit (milliseconds) or nonsense

# orjson reads 1,024 levels of nesting; whoever compares, masks, writes or shows such a value by
# recursion needs a few frames a level. Python's own frames cost no C stack since 3.11.
_DEEPEST = 1000
sys.setrecursionlimit(max(sys.getrecursionlimit(), 10 * _DEEPEST))
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_LONGEST = 1e9  # seconds, 30 years: a longer processing time is none, and sums of such overflow


class Invalid(str):
    """Something is there, but not what the field should be; the text is what was found."""


Moment = float | Invalid | None
"""A point in time in Unix seconds; None: never set; Invalid: set to something that is no time."""


def to_text(raw: bytes | str) -> str:
    """Text of a key or value; bytes that are not UTF-8 survive as surrogate escapes."""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes that `to_text` came from; lone surrogates that came from JSON are kept as WTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def has_long_integer(raw: bytes) -> bool:
    """Whether there are 19 digits in a row: orjson turns integers beyond 64 bits into floats. To
    look in this way costs a tenth of what a regular expression does, which would be more than the
    parsing itself."""
    return b"0" * 19 in raw.translate(_ANY_DIGIT)


def parse_json(raw: bytes) -> tuple[Any, str]:
    """(value, problem). Reads what Python's `json` writes: NaN, Infinity, long integers, lone
    surrogates. `problem` is empty, or says in plain words why there is no value."""
    if not has_long_integer(raw):
        try:
            return orjson.loads(raw), ""
        except orjson.JSONDecodeError:
            pass
    return _parse_json_slowly(raw)


def doubled_keys(raw: bytes) -> list[str]:
    """Keys that occur more than once in one object of a JSON text; readers keep the last value."""
    doubled: dict[str, None] = {}

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(found)
        if len(seen) < len(found):
            counts = Counter(key for key, _ in found)
            doubled.update(dict.fromkeys(key for key, times in counts.items() if times > 1))
        return seen

    try:
        json.loads(raw, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return []
    return list(doubled)


def _depth(raw: bytes) -> int:
    """How deep objects and lists are nested in a JSON text, well-formed or not."""
    depth = deepest = 0
    for token in _NESTING.finditer(raw):
        if token[0] in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in (b"]", b"}"):
            depth -= 1
    return deepest


def _parse_json_slowly(raw: bytes) -> tuple[Any, str]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start}"
    if _depth(raw) > _DEEPEST:
        return None, "nested too deep"
    try:
        value = json.loads(text)
    except RecursionError:
        return None, "nested too deep"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at character {error.pos}"
    except ValueError:
        return None, "a number with too many digits"
    return value, ""


def moment(value: object) -> Moment:
    """Unix seconds from a number or numeric text; 0, "" and null mean never."""
    if value is None or value == "" or value == b"":
        return None
    if isinstance(value, bytes):
        value = to_text(value)
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number < LATEST:
        return Invalid(text_of(value)[:80])
    return number or None


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text_of(value: object) -> str:
    """A field that should be text; anything else as compact JSON, so that nothing is hidden."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return to_text(value)
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):  # orjson reads deeper than json can write
        return f"{json_kind(value)} that cannot be shown"


@dataclass(slots=True)
class Supervisor:
    """`supervisor:{agent}` of the configuration. Nobody updates it once its process is dead."""

    agent_name: str
    state: str = ""
    healthy: bool | None = None
    pid: int | None = None
    start_time: Moment = None
    cpu_percent: float | None = None
    memory_mb: float | None = None
    total_requests: int | None = None
    restart_count: int | None = None
    last_heartbeat: Moment = None
    last_updated: Moment = None
    problem: str = ""


@dataclass(slots=True)
class Agent:
    """One registration. `subscribed` is OmniDaemon's flag: False is paused, None is unknown.

    `shares_record_with` names the (topic, name) pairs that lie under the same Redis key; the record
    then describes only one of them. `problem` says why the record could not be read.
    """

    topic: str
    name: str
    callback_name: str = ""
    description: str = ""
    tools: list[Any] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    created_at: Moment = None
    extra: dict[str, Any] = field(default_factory=dict)
    shares_record_with: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""
    subscribed: bool | None = None
    supervisor: Supervisor | None = None


@dataclass(slots=True)
class Result:
    """One stored result. `expires_at` None means that it never expires.

    `size` counts the stored bytes. `raw` is the stored text, only where one result was asked for,
    at most `RAW_LIMIT` bytes of it if it is too large to parse (`truncated`). `body` is the parsed
    `result` field likewise, valid if `parsed`.
    """

    task_id: str
    agent: str = ""
    topic: str = ""
    status: str = ""
    saved_at: Moment = None
    expires_at: float | None = None
    size: int = 0
    indexed: bool = True
    problem: str = ""
    body: Any = None
    parsed: bool = False
    raw: bytes = b""
    truncated: bool = False

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(slots=True)
class Metric:
    """One event. `id` orders events of a store; `seconds` is the processing time where given.
    `stored_at` is when the store took it, None if it does not say; `timestamp` is what the event
    says of itself, and `stored_at` where it says nothing that is a time."""

    id: str
    event: str
    topic: str = ""
    agent: str = ""
    task_id: str = ""
    timestamp: Moment = None
    seconds: float | None = None
    error: str = ""
    error_type: str = ""
    old_state: str = ""
    new_state: str = ""
    runner_id: str = ""
    problem: str = ""
    stored_at: float | None = None


@dataclass(slots=True)
class ConfigEntry:
    """One configuration key; `raw` is the stored text, at most `RAW_LIMIT` bytes of it."""

    key: str
    value: Any = None
    raw: bytes = b""
    size: int = 0
    truncated: bool = False
    problem: str = ""


@dataclass(slots=True)
class Broken:
    """Something unreadable or inconsistent: where it lies, why, and how it begins."""

    key: str
    reason: str
    preview: bytes = b""


RAW_LIMIT = 64 * 1024  # a larger value is shown by its first 64 KB and never read whole


def read_supervisor(agent_name: str, value: object) -> Supervisor:
    """From the parsed JSON of `supervisor:{agent}`."""
    if not isinstance(value, dict):
        return Supervisor(agent_name, problem=f"expected an object, is {json_kind(value)}")

    def whole(key: str) -> int | None:
        found = number(value.get(key))
        return None if found is None else int(found)

    healthy = value.get("healthy")
    return Supervisor(
        agent_name=agent_name,
        state=text_of(value.get("state")),
        healthy=healthy if isinstance(healthy, bool) else None,
        pid=whole("pid"),
        start_time=moment(value.get("start_time")),
        cpu_percent=number(value.get("cpu_percent")),
        memory_mb=number(value.get("memory_mb")),
        total_requests=whole("total_requests"),
        restart_count=whole("restart_count"),
        last_heartbeat=moment(value.get("last_heartbeat")),
        last_updated=moment(value.get("last_updated")),
    )


_AGENT_FIELDS = {
    "name", "callback_name", "callback", "description", "tools", "config", "created_at", "topic",
}  # fmt: skip


def read_agent(topic: str, name: str, value: object) -> Agent:
    """From an agent's JSON object, or a Redis hash whose `tools` and `config` were parsed."""
    agent = Agent(topic=topic, name=name)
    if not isinstance(value, dict):
        agent.problem = f"expected an object, is {json_kind(value)}"
        return agent
    agent.callback_name = text_of(value.get("callback_name"))
    agent.description = text_of(value.get("description"))
    agent.created_at = moment(value.get("created_at"))
    tools, config = value.get("tools"), value.get("config")
    if tools is not None and not isinstance(tools, list):
        agent.problem = f"tools: expected a list, is {json_kind(tools)}"
    if config is not None and not isinstance(config, dict):
        agent.problem = f"config: expected an object, is {json_kind(config)}"
    agent.tools = tools if isinstance(tools, list) else []
    agent.config = config if isinstance(config, dict) else {}
    agent.extra = {key: found for key, found in value.items() if key not in _AGENT_FIELDS}
    return agent


def read_result(task_id: str, value: object, size: int) -> Result:
    """From the parsed `{task_id, result, saved_at, expires_at?}`; the body is not kept."""
    result = Result(task_id=task_id, size=size)
    if not isinstance(value, dict):
        result.problem = f"expected an object, is {json_kind(value)}"
        return result
    if "result" not in value:
        result.problem = "the field 'result' is missing"
    elif value.get("task_id", task_id) != task_id:
        result.problem = f"its own task_id says {text_of(value['task_id'])[:80]!r}"
    result.saved_at = moment(value.get("saved_at"))
    expires_at = moment(value.get("expires_at"))
    result.expires_at = expires_at if isinstance(expires_at, float) else None
    if isinstance(expires_at, Invalid):
        result.problem = f"expires_at is no time: {expires_at}"
    envelope = value.get("result")
    if isinstance(envelope, dict):
        result.agent = text_of(envelope.get("agent"))
        result.topic = text_of(envelope.get("topic"))
        result.status = text_of(envelope.get("status"))
    return result


def _processing_time(event: dict[str, Any]) -> float | None:
    seconds = number(event.get("processing_time_sec"))
    milliseconds = number(event.get("processing_time_ms"))
    return milliseconds / 1000 if seconds is None and milliseconds is not None else seconds


def read_metric(event_id: str, value: object, stored_at: float | None = None) -> Metric:
    """From an event's JSON object, in the fields that OmniDaemon writes and those it documents
    (`agent_name`, `event_type`, `processing_time_ms`). `stored_at` where the store itself knows
    it; else the event's own `saved_at`."""
    if not isinstance(value, dict):
        problem = f"expected an object, is {json_kind(value)}"
        return Metric(event_id, "unreadable", problem=problem, stored_at=stored_at)
    get = value.get
    seconds, problem = _processing_time(value), ""
    if seconds is None and not {"processing_time_sec", "processing_time_ms"}.isdisjoint(value):
        problem = "a processing time that is no number"
    elif seconds is not None and seconds < 0:
        seconds, problem = None, "a negative processing time"
    elif seconds is not None and seconds > _LONGEST:
        seconds, problem = None, "an impossible processing time"
    if stored_at is None:
        saved_at = moment(get("saved_at"))
        stored_at = saved_at if isinstance(saved_at, float) else None
    timestamp = moment(get("timestamp"))
    if not isinstance(timestamp, float) and stored_at is not None:
        timestamp = stored_at
    event = get("event") or get("event_type")
    if not isinstance(event, str) or not event:
        event, problem = "unreadable", "the field 'event' is missing"
    return Metric(
        id=event_id,
        event=event,
        topic=text_of(get("topic")),
        agent=text_of(get("agent") or get("agent_name")),
        task_id=text_of(get("task_id")),
        timestamp=timestamp,
        seconds=seconds,
        error=text_of(get("error")),
        error_type=text_of(get("error_type")),
        old_state=text_of(get("old_state")),
        new_state=text_of(get("new_state")),
        runner_id=text_of(get("runner_id")),
        problem=problem,
        stored_at=stored_at,
    )


def json_kind(value: object) -> str:
    """The name that JSON gives to a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    kinds = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)

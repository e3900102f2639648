"""Whatever a store holds becomes a record, never an exception."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import (
    Agent,
    Invalid,
    Metric,
    Result,
    json_kind,
    moment,
    number,
    parse_json,
    read_agent,
    read_metric,
    read_result,
    read_supervisor,
    text_of,
    to_bytes,
    to_text,
)

LATEST = 4102444800.0

any_text = st.text(st.characters())  # lone surrogates too
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(10**25, 10**30) | st.floats() | any_text
)
any_json = st.recursive(
    scalars,
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(any_text, children, max_size=4)
    ),
    max_leaves=12,
)


def shaped(*fields: str) -> st.SearchStrategy[Any]:
    """Objects with some of the fields that a reader looks at, of any kind; or anything at all."""
    return any_json | st.fixed_dictionaries({}, optional=dict.fromkeys(fields, any_json))


def same(left: Any, right: Any) -> bool:
    """Equal in type too, where NaN equals itself and 0.0 is not -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or (
            math.isnan(left) and math.isnan(right)
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


# Bytes and text


@given(st.binary())
def test_all_bytes_survive_being_text(raw):
    assert to_bytes(to_text(raw)) == raw


@given(any_text)
def test_any_text_can_become_bytes(text):
    assert isinstance(to_bytes(text), bytes)


@given(st.text(st.characters(codec="utf-8")))
def test_ordinary_text_survives_being_bytes(text):
    assert to_text(to_bytes(text)) == text


def test_a_lone_surrogate_and_a_byte_that_is_not_utf8_can_be_in_one_name():
    assert isinstance(to_bytes("\ud800\udcff"), bytes)


# JSON


def check_parse(raw: bytes) -> None:
    value, problem = parse_json(raw)
    assert isinstance(problem, str)
    try:
        expected = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        assert value is None
        assert problem
    else:
        assert problem == ""
        assert same(value, expected)


@given(st.binary())
def test_any_bytes_are_read_as_python_reads_them_or_have_a_problem(raw):
    check_parse(raw)


@given(st.text('0123456789.eE+-[]{}",:\\ u\nInfinityNaN', max_size=40))
def test_what_looks_like_json_is_read_as_python_reads_it_or_has_a_problem(text):
    check_parse(text.encode())


@given(any_json, st.sampled_from([None, 2]))
def test_what_python_writes_is_read_back(value, indent):
    raw = json.dumps(value, indent=indent).encode()
    check_parse(raw)


@given(any_json)
def test_what_python_writes_unescaped_is_read_back(value):
    check_parse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity, -Infinity]",
        "1e999",
        "-1e999",
        "1e-999",
        "-0",
        "-0.0",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        "0.1234567890123456789012345",
        '"\\ud800"',
        '"\\udcff"',
        '"\\u0000"',
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1}, "a": {"c": 2}}',
        '{"": ""}',
        '{"\\ud800": 1}',
        '"1234567890123456789012"',
        " \n1\t",
        "[" * 300 + "]" * 300,
    ],
)
def test_what_strict_parsers_refuse_or_change_is_read_exactly(text):
    value, problem = parse_json(text.encode())
    assert problem == ""
    assert same(value, json.loads(text))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"nan",
        b"undefined",
        b"{'a': 1}",
        b"[1,]",
        b"01",
        b"1 2",
        b'"\x00"',
        b'"line\nbreak"',
        b"\xff",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        "{}".encode("utf-16"),
        "{}".encode("utf-8-sig"),
        b"[" * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 5_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"-" + b"9" * 5_000,
    ],
)
def test_what_cannot_be_read_has_a_reason_in_plain_words(raw):
    value, problem = parse_json(raw)
    assert value is None
    assert problem
    assert len(problem) < 200
    assert "Traceback" not in problem


@pytest.mark.parametrize("depth", [500, 900, 990, 1000, 1010, 1023, 1024, 1025, 5_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_at_no_depth_does_a_record_raise(depth, opening):
    closing = "]" if opening == "[" else "}"
    deep = opening * depth + "1" + closing * depth
    value, _ = parse_json(deep.encode())
    text_of(value)
    moment(value)
    read_everything(value)
    read_everything(dict.fromkeys(FIELDS, value))
    read_everything({"result": {"agent": value, "topic": value, "status": value}})


# Times


@given(scalars | st.binary() | st.floats(allow_nan=True).map(str) | any_json)
def test_a_moment_is_never_out_of_range(value):
    found = moment(value)
    assert found is None or isinstance(found, Invalid) or 0 < found < LATEST


@pytest.mark.parametrize("value", [None, "", b"", 0, 0.0, -0.0, "0", "0.0", b"0"])
def test_nothing_and_zero_mean_never(value):
    assert moment(value) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1795426603.8589373, 1795426603.8589373),
        (1795426603, 1795426603.0),
        ("1795426603.8589373", 1795426603.8589373),
        (b"1795426603.5", 1795426603.5),
        ("1.7954e9", 1795400000.0),
        (1, 1.0),
        (LATEST - 1, LATEST - 1),
    ],
)
def test_a_time_is_a_number_or_numeric_text(value, seconds):
    assert moment(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        1795426603858,  # milliseconds
        "1795426603858",
        1e18,
        10**400,
        LATEST,
        -1,
        -1e-9,
        "-5",
        math.nan,
        "nan",
        math.inf,
        -math.inf,
        "inf",
        "yesterday",
        "2026-01-01T00:00:00Z",
        " ",
        "\ud800",
        b"\xff",
        True,
        False,
        [],
        {},
        [1795426603],
        {"seconds": 1},
    ],
)
def test_what_is_no_time_is_invalid_and_says_what_was_found(value):
    found = moment(value)
    assert isinstance(found, Invalid)
    assert len(found) <= 80


# Numbers and text


@given(any_json)
def test_a_number_is_finite_or_none(value):
    found = number(value)
    assert found is None or math.isfinite(found)


@pytest.mark.parametrize("value", [None, True, False, "1", math.nan, math.inf, 10**400, [], {}])
def test_what_is_no_finite_number_is_none(value):
    assert number(value) is None


@given(any_json)
def test_any_value_has_a_text(value):
    assert isinstance(text_of(value), str)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("", ""), ("a", "a"), (b"\xff", "\udcff"), (0, "0"), (False, "false"), ([], "[]")],
)
def test_text_is_itself_and_anything_else_is_json(value, text):
    assert text_of(value) == text


@given(any_json)
def test_every_kind_has_a_name(value):
    assert json_kind(value) in {"null", "a boolean", "a number", "text", "a list", "an object"}


# Records

FIELDS = (
    "name", "callback_name", "callback", "description", "tools", "config", "created_at", "topic",
    "task_id", "result", "saved_at", "expires_at", "agent", "status", "event", "event_type",
    "agent_name", "timestamp", "processing_time_sec", "processing_time_ms", "error", "error_type",
    "old_state", "new_state", "runner_id", "state", "healthy", "pid", "start_time", "cpu_percent",
    "memory_mb", "total_requests", "restart_count", "last_heartbeat", "last_updated",
)  # fmt: skip


def read_everything(value: Any) -> tuple[Agent, Result, Metric]:
    agent = read_agent("topic", "name", value)
    assert (agent.topic, agent.name) == ("topic", "name")
    assert isinstance(agent.tools, list)
    assert isinstance(agent.config, dict)
    result = read_result("id", value, 10)
    assert result.task_id == "id"
    assert result.expires_at is None or 0 < result.expires_at < LATEST
    metric = read_metric("1-1", value)
    assert metric.id == "1-1"
    assert metric.event
    assert metric.seconds is None or (math.isfinite(metric.seconds) and metric.seconds >= 0)
    supervisor = read_supervisor("name", value)
    assert supervisor.agent_name == "name"
    assert supervisor.healthy in (None, True, False)
    for record in (agent, result, metric, supervisor):
        assert isinstance(record.problem, str)
        for name in ("saved_at", "created_at", "timestamp", "start_time", "last_heartbeat"):
            found = getattr(record, name, None)
            assert found is None or isinstance(found, Invalid) or 0 < found < LATEST
        for name in ("agent", "topic", "status", "error", "state", "description", "task_id"):
            assert isinstance(getattr(record, name, ""), str)
    return agent, result, metric


@given(shaped(*FIELDS))
def test_no_json_value_raises(value):
    read_everything(value)


@given(st.fixed_dictionaries({"result": shaped("agent", "topic", "status")}))
def test_no_envelope_raises(value):
    read_everything(value)


@pytest.mark.parametrize("root", [None, True, 0, 1.5, math.nan, "text", [], [1], [{}]])
def test_a_wrong_root_is_a_marked_record(root):
    for record in read_everything(root):
        assert record.problem
    assert read_supervisor("name", root).problem


def test_an_empty_object_is_an_agent_with_nothing():
    assert read_agent("t", "n", {}) == Agent("t", "n")


@pytest.mark.parametrize("tools", ["search", {"a": 1}, 7, True])
def test_tools_that_are_no_list_mark_the_agent_and_leave_the_rest(tools):
    agent = read_agent("t", "n", {"tools": tools, "description": "d", "config": {"a": 1}})
    assert agent.problem
    assert (agent.tools, agent.description, agent.config) == ([], "d", {"a": 1})


@pytest.mark.parametrize("config", ["x", [], 7, True])
def test_a_config_that_is_no_object_marks_the_agent_and_leaves_the_rest(config):
    agent = read_agent("t", "n", {"tools": ["a"], "config": config})
    assert agent.problem
    assert (agent.tools, agent.config) == (["a"], {})


def test_ten_thousand_tools_and_a_megabyte_of_name_are_kept():
    tools = [f"tool {i}" for i in range(10_000)]
    agent = read_agent("t", "n" * 1_000_000, {"tools": tools})
    assert (len(agent.tools), len(agent.name)) == (10_000, 1_000_000)


def test_fields_that_nobody_knows_are_kept_aside():
    agent = read_agent("t", "n", {"name": "n", "callback": "<f at 0x1>", "version": 2})
    assert agent.extra == {"version": 2}


def test_a_result_without_result_is_marked():
    assert read_result("a", {"task_id": "a", "saved_at": 1.0}, 1).problem


def test_a_result_that_is_null_is_no_problem():
    assert not read_result("a", {"task_id": "a", "result": None, "saved_at": 1.0}, 1).problem


def test_a_result_that_claims_another_id_is_marked_and_stays_addressable():
    result = read_result("a", {"task_id": "b", "result": 1}, 1)
    assert result.problem
    assert result.task_id == "a"


@pytest.mark.parametrize("expires_at", ["soon", -1, math.nan, 1e18, True, []])
def test_an_expiry_that_is_no_time_is_marked_and_is_not_expired(expires_at):
    result = read_result("a", {"result": 1, "expires_at": expires_at}, 1)
    assert result.problem
    assert not result.expired(2e9)


@pytest.mark.parametrize("expires_at", [None, 0, ""])
def test_no_expiry_is_for_ever(expires_at):
    result = read_result("a", {"result": 1, "expires_at": expires_at}, 1)
    assert (result.expires_at, result.problem) == (None, "")
    assert not result.expired(LATEST)


def test_a_result_is_expired_from_that_very_moment():
    result = read_result("a", {"result": 1, "expires_at": 100.0}, 1)
    assert not result.expired(99.999)
    assert result.expired(100.0)


@pytest.mark.parametrize("body", [None, 7, "text", [], [{"agent": "a"}]])
def test_a_result_need_not_be_an_envelope(body):
    result = read_result("a", {"result": body}, 1)
    assert (result.agent, result.topic, result.status, result.problem) == ("", "", "", "")


def test_the_documented_names_of_metric_fields_are_read_too():
    written = {"event": "task_processed", "agent": "a", "processing_time_sec": 0.25}
    documented = {"event_type": "task_processed", "agent_name": "a", "processing_time_ms": 250}
    assert read_metric("1", written) == read_metric("1", documented)


def test_the_names_that_omnidaemon_writes_come_first():
    metric = read_metric(
        "1",
        {
            "event": "task_processed",
            "event_type": "other",
            "agent": "a",
            "agent_name": "b",
            "processing_time_sec": 0.0,
            "processing_time_ms": 9,
        },
    )
    assert (metric.event, metric.agent, metric.seconds) == ("task_processed", "a", 0.0)


@pytest.mark.parametrize("seconds", ["0.5", None, True, math.nan, math.inf, [], 10**400])
def test_a_processing_time_that_is_no_number_is_not_there(seconds):
    assert read_metric("1", {"event": "e", "processing_time_sec": seconds}).seconds is None


def test_a_negative_processing_time_is_marked():
    metric = read_metric("1", {"event": "task_processed", "processing_time_sec": -1})
    assert metric.seconds is None
    assert metric.problem


@pytest.mark.parametrize("event", [None, "", 7, [], {}])
def test_an_event_without_a_kind_is_marked(event):
    metric = read_metric("1", {"event": event, "agent": "a"})
    assert (metric.event, metric.agent) == ("unreadable", "a")
    assert metric.problem


def test_a_metric_without_a_usable_timestamp_has_the_time_it_was_saved():
    assert read_metric("1", {"event": "e", "timestamp": "x", "saved_at": 5.0}).timestamp == 5.0
    assert read_metric("1", {"event": "e", "saved_at": 5.0}).timestamp == 5.0
    assert isinstance(read_metric("1", {"event": "e", "timestamp": "x"}).timestamp, Invalid)


def test_a_first_heartbeat_of_zero_means_never():
    assert read_supervisor("a", {"last_heartbeat": 0.0}).last_heartbeat is None


@pytest.mark.parametrize("healthy", ["true", 1, None, []])
def test_health_is_known_only_from_a_boolean(healthy):
    assert read_supervisor("a", {"healthy": healthy}).healthy is None

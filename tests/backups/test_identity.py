"""Whatever a store holds, backed up and restored it is the same store again, the whole way by runs;
and moved to another kind of store, all that the report of losses did not name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from omnidash.actions.plans import unpack
from omnidash.models import Backup, Run
from omnidash.stores import registry
from storage.comparison import identical
from storage.conversion import Loss
from tests.backups.asking import backed_up, did, restored
from tests.backups.world import records_in
from tests.pages import serving
from tests.redis_stores import held
from tests.stores import JsonBackend, RedisBackend, let_it_rest
from tests.test_conversion import JSON_AGENTS, TIMES, VALUES, WORDS, encode, moved, some
from tests.test_json_snapshot import AGENTS, EVENTS, LAYOUT, TEXT_KEYED
from tests.test_redis_staging import WRITES, write_all

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

once = settings(
    max_examples=8, phases=[Phase.explicit, Phase.generate],  # each takes long, shrinking for ever
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
long = settings(once, max_examples=400)


def safety() -> Backup:
    return Backup.objects.filter(reason="safety").latest("made_at")


# Redis


def there_and_back_in_redis(backend: RedisBackend, first: list[Any], second: list[Any]) -> None:
    with serving(prod=backend.url):
        backend.client.flushdb()
        write_all(backend.client, first)
        wanted, made = theirs(backend), backed_up()
        backend.client.flushdb()
        write_all(backend.client, second)
        for key in backend.client.scan_iter(count=1000):
            if backend.client.pttl(key) > 0:  # of what is the same but lives as long, to the …
                backend.client.pexpire(key, 20_000_000)  # … millisecond, nothing is restored
        other = theirs(backend)
        restored(made)
        assert theirs(backend) == wanted
        restored(safety())
        assert theirs(backend) == other


def theirs(backend: RedisBackend) -> dict[bytes, object]:
    return {key: one for key, one in held(backend).items() if key.startswith(b"omni:")}


@once
@given(WRITES, WRITES)
def test_a_redis_becomes_what_was_backed_up_and_again_what_it_was(
    redis_backend: RedisBackend, first: list[Any], second: list[Any]
) -> None:
    there_and_back_in_redis(redis_backend, first, second)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@long
@given(WRITES, WRITES)
def test_any_redis_becomes_what_was_backed_up_and_again_what_it_was(
    redis_backend: RedisBackend, first: list[Any], second: list[Any]
) -> None:
    there_and_back_in_redis(redis_backend, first, second)


# JSON

Files = dict[str, bytes]


@st.composite
def directories(draw: st.DrawFn) -> Files:
    layout: Callable[[Any], bytes] = draw(LAYOUT)
    kinds = {"agents": AGENTS, "results": TEXT_KEYED, "metrics": EVENTS, "config": TEXT_KEYED}
    return {f"{name}.json": layout(draw(values)) for name, values in kinds.items()}


def write(folder: Path, files: Files) -> None:
    for path in folder.glob("*.json"):
        path.unlink()
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    let_it_rest(folder)


def there_and_back_in_json(backend: JsonBackend, first: Files, second: Files) -> None:
    with serving(prod=backend.url):
        store = registry()["prod"].store
        write(backend.folder, first)
        made, wanted = backed_up(), records_in(store)
        write(backend.folder, {})
        restored(made)
        assert identical(wanted, store.snapshot()).differing == 0
        write(backend.folder, second)
        other = records_in(store)
        restored(made)
        assert identical(wanted, store.snapshot()).differing == 0
        restored(safety())
        assert identical(other, store.snapshot()).differing == 0


UNDATED = {"metrics.json": b'[1, {"saved_at": 3}, {"saved_at": 2.5}]'}


@once
@given(directories(), directories())
@example(UNDATED, {"metrics.json": b'[{"saved_at": 3}]'})
def test_a_directory_becomes_what_was_backed_up_and_again_what_it_was(
    json_backend: JsonBackend, first: Files, second: Files
) -> None:
    there_and_back_in_json(json_backend, first, second)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@long
@given(directories(), directories())
def test_any_directory_becomes_what_was_backed_up_and_again_what_it_was(
    json_backend: JsonBackend, first: Files, second: Files
) -> None:
    there_and_back_in_json(json_backend, first, second)


# From the one to the other

PAST = TIMES.filter(lambda moment: moment < 1.7e9)
LATER = st.integers(2_100_000_000_000, 4_000_000_000_000).map(lambda ms: ms / 1000)
RESULTS = st.dictionaries(
    WORDS,
    st.tuples(some(task_id=WORDS, result=VALUES, saved_at=PAST), some(expires_at=LATER)).map(
        lambda two: two[0] | two[1]
    ),
    max_size=4,
)
DATED = st.lists(some(event=st.text(), saved_at=PAST, topic=VALUES), max_size=5)
CONFIG = st.dictionaries(WORDS, VALUES, max_size=4)


@st.composite
def movable(draw: st.DrawFn) -> Files:
    topics: dict[str, list[Any]] = {}
    for one in draw(JSON_AGENTS):
        topics.setdefault(one.names[0], []).append(one.raw)
    agents = b",".join(
        encode(topic) + b": [" + b",".join(some) + b"]" for topic, some in topics.items()
    )
    kinds = {"results": RESULTS, "metrics": DATED, "config": CONFIG}
    rest = {f"{name}.json": encode(draw(values)) for name, values in kinds.items()}
    return {"agents.json": b"{" + agents + b"}", **rest}


def named(run: Run, loss: Loss) -> None:
    """The confirmation named before what was not copied."""
    assert run.plan is not None
    targets = unpack(bytes(run.plan.content or b""))
    found = {
        (one.names[0], one.kind, one.names[1]): one.count
        for one in targets if one.names[0] in ("lost", "altered")
    }  # fmt: skip
    wanted = {("lost", *key): count for key, count in loss.refused.items()}
    wanted |= {("altered", *key): count for key, count in loss.altered.items()}
    assert found == wanted


def moved_and_back(one: JsonBackend, other: RedisBackend, third: Path, files: Files) -> None:
    other.client.flushdb()
    write(one.folder, files)
    third.mkdir(exist_ok=True)
    write(third, {})
    with serving(one=one.url, other=other.url, third=f"json://{third}"):
        stores = {name: entry.store for name, entry in registry().items()}
        for origin, target in (("one", "other"), ("other", "third")):
            given = [record for record in records_in(stores[origin]) if record.kind != "file"]
            expected, loss = moved(given, stores[origin].backend, stores[target].backend)
            run = did("copy-store", target, mode="replace", volatile=True, **{"from": origin})
            assert identical(expected, stores[target].snapshot()).differing == 0
            named(run, loss)


@once
@given(movable())
def test_a_directory_moved_to_redis_and_on_is_the_same_less_what_was_named(
    json_backend: JsonBackend, redis_backend: RedisBackend, tmp_path: Path, files: Files
) -> None:
    moved_and_back(json_backend, redis_backend, tmp_path / "third", files)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@long
@given(movable())
def test_any_directory_moved_to_redis_and_on_is_the_same_less_what_was_named(
    json_backend: JsonBackend, redis_backend: RedisBackend, tmp_path: Path, files: Files
) -> None:
    moved_and_back(json_backend, redis_backend, tmp_path / "third", files)

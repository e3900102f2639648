"""Agents taken out of the lists of their topics and put back: two may have one name, or none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.changes import CHANGED, GONE, THERE, Change, Record, Target
from storage.json_store.agents import listed_name, own_name
from storage.json_store.cuts import NO_JSON, Added, Cut, mark_of, note_done, why_not
from storage.json_store.layout import (
    Corrupt,
    Listing,
    Objects,
    as_record,
    parse_exactly,
    parse_list,
)

WHOLE = ""  # the name under which a topic is known that is no list of agents
_BY_PLACE = re.compile(r"\[\d+\]")
_NO_LIST = "its topic is no list of agents"


@dataclass(frozen=True, slots=True)
class Placed:
    """An agent in its topic's list; its text as it would stand one level deep."""

    name: str
    named: bool
    text: bytes
    mark: str


def placed_agents(document: Objects) -> dict[str, list[Placed]]:
    """The agents of every topic of one version, in their places."""
    return {topic: _in_topic(document, topic) for topic in document.values}


def _in_topic(document: Objects, topic: str) -> list[Placed]:
    text = document.text(topic)
    if not isinstance(document.values[topic], list):
        return [Placed(WHOLE, True, text, mark_of(text))]
    # No string holds a line break, so that this is the list as a file of its own.
    agents = parse_list(text.replace(b"\n  ", b"\n"))
    found = []
    for position, value in enumerate(agents.values):
        name, one = listed_name(position, value), agents.text(position)
        found.append(Placed(name, own_name(value) is not None, one, mark_of(one)))
    return found


def _as_topic(texts: list[bytes]) -> bytes:
    return Listing.of(texts, []).raw.replace(b"\n", b"\n  ")


def agent_targets(document: Objects, agents: Iterable[tuple[str, str]] | None) -> list[Target]:
    wanted = None if agents is None else set(agents)
    found = [
        Target("agent", (topic, one.name), one.mark, len(one.text))
        for topic, ones in document.derive(placed_agents).items()
        for one in ones
        if wanted is None or (topic, one.name) in wanted
    ]
    return sorted(found, key=lambda target: target.names)


def without_agents(document: Objects, targets: Sequence[Target]) -> Cut[Objects]:
    placed = document.derive(placed_agents)
    topics = {target.names[0] for target in targets}
    seats = {topic: _Seats(placed.get(topic, [])) for topic in topics}
    change, records = Change(), list[Record]()
    for target in targets:
        topic, name = target.names
        place = seats[topic].take(name, target.mark)
        if place is None:
            reason = CHANGED if name in seats[topic].names else GONE
            change.skipped.append((target.names, reason))
        else:
            text = placed[topic][place].text
            # A topic that is no list has no places.
            score = None if name == WHOLE else str(place)
            records.append(Record("agent", target.names, text, score=score))
    note_done(change, records)
    if not records:
        return None, [], change
    left = {topic: seats[topic].left() for topic in topics if seats[topic].taken}
    put = {topic: _as_topic(texts) for topic, texts in left.items() if texts}
    return document.with_texts(put, left.keys() - put.keys()), records, change


class _Seats:
    """Who sits where in a topic, found by name and mark. Those without a name move up when one
    before them leaves, so that their mark alone tells who they are."""

    def __init__(self, agents: list[Placed]) -> None:
        self._agents = agents
        self.names = {agent.name for agent in agents}
        self.taken: set[int] = set()
        self._places: dict[tuple[str | None, str], list[int]] = defaultdict(list)
        for place in reversed(range(len(agents))):
            agent = agents[place]
            self._places[agent.name if agent.named else None, agent.mark].append(place)

    def take(self, name: str, mark: str) -> int | None:
        places = self._places.get((name, mark))
        if not places and _BY_PLACE.fullmatch(name):
            places = self._places.get((None, mark))
        if not places:
            return None
        self.taken.add(places[-1])
        return places.pop()

    def left(self) -> list[bytes]:
        return [agent.text for place, agent in enumerate(self._agents) if place not in self.taken]


def with_agents(document: Objects, records: Sequence[Record]) -> Added[Objects]:
    """Each in the place in its topic's list that it had, as far as the list still reaches."""
    placed = document.derive(placed_agents)
    change, fresh = Change(), dict[str, list[tuple[int, bytes]]]()
    put: dict[str, bytes] = {}
    there = {
        topic: _Present(placed[topic])
        for topic in {record.names[0] for record in records}
        if topic in placed
    }
    for record in records:
        topic, name = record.names
        text = as_record(record.raw)
        reason = why_not(record) or (NO_JSON if text is None else "")
        if not reason and (topic in put or (name == WHOLE and (topic in placed or topic in fresh))):
            reason = THERE
        elif not reason and topic in there:
            reason = there[topic].against(text or b"")
        if reason or text is None:
            change.skipped.append((record.names, reason))
        elif name == WHOLE:
            put[topic] = text
        else:
            fresh.setdefault(topic, []).append((place_of(record), text))
    change.done = len(put) + sum(map(len, fresh.values()))
    for topic, agents in fresh.items():
        put[topic] = _as_topic(_seated([one.text for one in placed.get(topic, [])], agents))
    return document.with_texts(put) if put else None, change


class _Present:
    """Who was there before anybody came back."""

    def __init__(self, agents: list[Placed]) -> None:
        self._no_list = any(agent.name == WHOLE for agent in agents)
        self._names = {agent.name for agent in agents if agent.named}
        self._marks = {agent.mark for agent in agents if not agent.named}

    def against(self, text: bytes) -> str:
        if self._no_list:
            return _NO_LIST
        name = own_name(parse_exactly(text)[0])
        known = mark_of(text) in self._marks if name is None else name in self._names
        return THERE if known else ""


def place_of(record: Record) -> int:
    score = record.score or ""
    return int(score) if score.isdecimal() and len(score) < 10 else 1 << 30


def _seated(texts: list[bytes], agents: list[tuple[int, bytes]]) -> list[bytes]:
    for place, text in sorted(agents, key=lambda agent: agent[0]):
        texts.insert(place, text)
    return texts


Put = dict[str, list[tuple[int, bytes]]]
"""Agents of a topic by name, with their places: two may have one name."""


def merged_agents(document: Objects, put: dict[str, Put], deleted: set[tuple[str, str]]) -> Objects:
    """Put in the place of those of their names. Corrupt where a topic would be no list of agents
    and hold some, too."""
    placed = document.derive(placed_agents)
    gone = deleted | {(topic, name) for topic, agents in put.items() for name in agents}
    topics: dict[str, bytes] = {}
    for topic in dict.fromkeys([*(topic for topic, _ in deleted), *put]):
        left = [one for one in placed.get(topic, []) if (topic, one.name) not in gone]
        fresh = put.get(topic, {})
        names = {one.name for one in left} | fresh.keys()
        if WHOLE in names and len(names) > 1:
            raise Corrupt(f"topic {topic!r} {_NO_LIST.removeprefix('its topic ')}")
        agents = [one for ones in fresh.values() for one in ones]
        if WHOLE in names:
            topics[topic] = agents[-1][1] if agents else left[0].text
        elif names:
            topics[topic] = _as_topic(_seated([one.text for one in left], agents))
    dropped = {topic for topic, _ in gone} - topics.keys()
    return document.with_texts(topics, dropped) if gone else document

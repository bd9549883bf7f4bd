"""The floor register: stamps, candidates, the join, and its share of the digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import xxhash

from .cbor import BadBytes

UNITS_A_SECOND: Final = 1 << 32


def units(ms: int) -> int:
    """Milliseconds as NTP64 units: of a clock reading since 1970, or of a margin."""
    return ms * UNITS_A_SECOND // 1000


@dataclass(frozen=True, order=True, slots=True)
class Stamp:
    """Generation, time in NTP64 units since 1970, replica; compared in this order."""

    generation: int
    time: int
    replica: bytes

    def to_bytes(self) -> bytes:
        return self.generation.to_bytes(2, "big") + self.time.to_bytes(8, "big") + self.replica


LOWEST: Final = Stamp(0, 0, bytes(16))


@dataclass(frozen=True, slots=True)
class Saw:
    """Up to where the author had read its authority."""

    incarnation: bytes
    done: int


@dataclass(frozen=True, slots=True)
class Header:
    """What all registers of an edit bear."""

    stamp: Stamp
    rank: int = 0
    saw: Saw | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A write that is still in the running. Its value is in canonical bytes."""

    header: Header
    value: bytes

    @property
    def stamp(self) -> Stamp:
        return self.header.stamp


Moment = tuple[int, int]
"""Generation and time of a write of a replica."""


@dataclass(frozen=True, slots=True)
class Register:
    """Candidates rise by stamp; nothing, candidate or seen, is below the floor."""

    floor: Stamp
    candidates: tuple[Candidate, ...]
    seen: Mapping[bytes, Moment] = field(default_factory=dict)

    @property
    def newest(self) -> Candidate:
        return self.candidates[-1]

    def check(self) -> None:
        """Refuses what the page refuses."""
        if not self.candidates:
            raise BadBytes("a register without candidates")
        stamps = [candidate.stamp for candidate in self.candidates]
        if any(a >= b for a, b in pairwise(stamps)):
            raise BadBytes("candidates that do not rise")
        replicas = {stamp.replica for stamp in stamps}
        if len(replicas) != len(stamps):
            raise BadBytes("two candidates of one replica")
        if stamps[0] < self.floor:
            raise BadBytes("a candidate below the floor")
        newest = (stamps[-1].generation, stamps[-1].time)
        for replica, moment in self.seen.items():
            if replica in replicas or moment >= newest or Stamp(*moment, replica) < self.floor:
                raise BadBytes("a seen entry that cannot be")

    def to_digest_bytes(self) -> bytes:
        parts = [self.floor.to_bytes(), len(self.candidates).to_bytes(8, "big")]
        for c in self.candidates:
            parts += [c.stamp.to_bytes(), bytes([c.header.rank]), len(c.value).to_bytes(8, "big"), c.value]
        parts += [Stamp(*self.seen[replica], replica).to_bytes() for replica in sorted(self.seen)]
        return b"".join(parts)

    def _has_seen(self, stamp: Stamp) -> bool:
        moment = self.seen.get(stamp.replica)
        if moment is None:
            moment = next(
                ((c.stamp.generation, c.stamp.time) for c in self.candidates if c.stamp.replica == stamp.replica), None
            )
        return moment is not None and moment >= (stamp.generation, stamp.time)


def join(a: Register, b: Register) -> Register:
    """The least state that knows what both know: commutative, associative, idempotent."""
    floor = max(a.floor, b.floor)
    alive: dict[Stamp, Candidate] = {}
    for one, other in ((a, b), (b, a)):
        theirs = {candidate.stamp: candidate for candidate in other.candidates}
        for candidate in one.candidates:
            twin = theirs.get(candidate.stamp)
            if candidate.stamp < floor or (twin is None and other._has_seen(candidate.stamp)):
                continue
            alive[candidate.stamp] = candidate if twin is None else max(candidate, twin, key=_content_order)
    candidates = tuple(alive[stamp] for stamp in sorted(alive))

    seen: dict[bytes, Moment] = {}
    for one in (a, b):
        implied = {c.stamp.replica: (c.stamp.generation, c.stamp.time) for c in one.candidates}
        for replica, moment in (*one.seen.items(), *implied.items()):
            seen[replica] = max(moment, seen.get(replica, (0, 0)))
    held = {candidate.stamp.replica for candidate in candidates}
    kept = {r: m for r, m in seen.items() if r not in held and Stamp(*m, r) >= floor}
    return Register(floor, candidates, kept)


def write(old: Register | None, header: Header, margin_ms: int | None, value: bytes) -> Register:
    """The register that an edit writes over the one that its author sees; a margin of None is infinite."""
    floor = _floor(header.stamp, margin_ms)
    if old is not None:
        floor = max(floor, old.floor)
    seen: dict[bytes, Moment] = {}
    if old is not None:
        seen = dict(old.seen)
        for candidate in old.candidates:
            seen[candidate.stamp.replica] = (candidate.stamp.generation, candidate.stamp.time)
        seen = {r: m for r, m in seen.items() if r != header.stamp.replica and Stamp(*m, r) >= floor}
    return Register(floor, (Candidate(header, value),), seen)


def digest_of(kind: str, id_: str, address: bytes, register: Register) -> int:
    """One register's share of the digest."""
    parts = []
    for part in (kind.encode(), id_.encode(), address):
        parts += [len(part).to_bytes(8, "big"), part]
    return xxhash.xxh3_128_intdigest(b"".join(parts) + register.to_digest_bytes(), seed=0)


def _floor(stamp: Stamp, margin_ms: int | None) -> Stamp:
    if margin_ms == 0:
        return stamp
    if margin_ms is None:
        return LOWEST
    return Stamp(stamp.generation, max(stamp.time + 1 - units(margin_ms), 0), bytes(16))


def _content_order(candidate: Candidate) -> tuple[int, bytes]:
    """Of two writes of one stamp the greater stays, by its bytes."""
    return (candidate.header.rank, candidate.value)

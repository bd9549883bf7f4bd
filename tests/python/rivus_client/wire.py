"""Frames: integers, dictionaries, and the rows of DELTA, PUSH and FETCHED.

A direction of a connection has one `Coder`. Its state lives as long as the connection, and both ends must change theirs
at the same moments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Generic, TypeVar

import zstandard

from . import cbor
from .cbor import BadBytes
from .register import LOWEST, UNITS_A_SECOND, Candidate, Header, Moment, Register, Saw, Stamp

FRAME_MAX: Final = 32 << 20
ANEW: Final = 32
"""In the flags of a frame of rows: its sender's memory starts anew with it."""
COMPRESS_FROM: Final = 512
EDITS_NAMED: Final = 16
U64: Final = (1 << 64) - 1
TIME_MAX: Final = (1 << 64) - (1 << 32) - 1


class Type(IntEnum):
    COMPRESSED = 0
    HELLO = 1
    WELCOME = 2
    GOAWAY = 3
    SCHEMA = 4
    SUBSCRIBE = 5
    EQUAL = 6
    DELTA = 7
    CHECKPOINT = 8
    PUSH = 9
    ACK = 10
    SYNCED = 11
    RESET = 12
    FETCH = 13
    FETCHED = 14
    WINDOW = 17
    LOST = 129
    HEARD = 130


class Code(IntEnum):
    """Why a connection ended, or an edit was refused."""

    CLOSED = 0
    BAD_FRAME = 100
    TOO_LARGE = 101
    VERSION = 102
    UNEXPECTED = 103
    UNAUTHORISED = 200
    NOT_AUTHORITY = 201
    SAME_STORE = 202
    COPIED = 203
    SCHEMA = 300
    CLOCK_SKEW = 400
    FOREIGN_STAMP = 401
    RANK = 402
    SEEN = 403
    SCOPE = 404
    MALFORMED = 405


Entity = tuple[str, str]
"""Kind and id."""

Registers = dict[bytes, Register]
"""The registers of an entity, by address."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A pending edit as it travels."""

    number: int
    entities: list[tuple[Entity, Registers]]


# ---------------------------------------------------------------- integers and slices


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """A wrapped difference of 64 bits as a varint."""
    signed = (number & U64) - (1 << 64 if number & 1 << 63 else 0)
    return varint((signed << 1 ^ signed >> 63) & U64)


def slice_(data: bytes) -> bytes:
    return varint(len(data)) + data


class Reader:
    """Reads from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def left(self) -> int:
        return len(self.data) - self.at

    def end(self) -> None:
        if self.left():
            raise BadBytes(f"{self.left()} bytes too many")

    def take(self, size: int) -> bytes:
        if size > self.left():
            raise BadBytes("the frame ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if number > U64 or (byte == 0 and shift):
                    break
                return number
        raise BadBytes("a varint that is too long")

    def zigzag(self) -> int:
        number = self.varint()
        return number >> 1 ^ -(number & 1)

    def slice(self) -> bytes:
        return self.take(self.varint())

    def text(self) -> str:
        try:
            return self.slice().decode()
        except UnicodeDecodeError as error:
            raise BadBytes("text that is not UTF-8") from error

    def plain_stamp(self) -> Stamp:
        """A stamp outside the stamps section."""
        return Stamp(self.varint(), self.number(8), self.take(16))

    def value(self) -> bytes:
        """The bytes of the next canonical value."""
        start = self.at
        _, self.at = cbor.read(self.data, start)
        return self.data[start : self.at]


def plain_stamp(stamp: Stamp) -> bytes:
    return varint(stamp.generation) + stamp.time.to_bytes(8, "big") + stamp.replica


# ---------------------------------------------------------------- compression


def compress(frame: bytes) -> bytes:
    if len(frame) < COMPRESS_FROM:
        return frame
    packed = bytes([Type.COMPRESSED]) + varint(len(frame)) + zstandard.ZstdCompressor(level=3).compress(frame)
    return min(frame, packed, key=len)


def decompress(frame: bytes) -> bytes:
    if frame[:1] != b"\x00":
        return frame
    reader = Reader(frame[1:])
    length = reader.varint()
    if length > FRAME_MAX:
        raise BadBytes("a frame above 32 MiB")
    packed = reader.take(reader.left())
    try:
        whole = zstandard.ZstdDecompressor().decompress(packed, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadBytes(f"no zstd: {error}") from error
    if len(whole) != length or whole[:1] == b"\x00":
        raise BadBytes("a compressed frame of another length than it says")
    return whole


# ---------------------------------------------------------------- dictionaries

T = TypeVar("T", bound=Hashable)


class Dictionary(Generic[T]):
    """What was sent in full, named by its distance from the newest, which is 1."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._entries: deque[tuple[T, int]] = deque()
        self._newest: dict[T, int] = {}  # counts all entries there ever were, from 1
        self._count = 0
        self._bytes = 0

    def push(self, item: T, size: int) -> None:
        self._count += 1
        self._entries.append((item, size))
        self._newest[item] = self._count
        self._bytes += size
        while len(self._entries) > self._entries_max or (self._bytes > self._bytes_max and len(self._entries) > 1):
            number = self._count - len(self._entries) + 1
            gone, gone_size = self._entries.popleft()
            self._bytes -= gone_size
            if self._newest[gone] == number:
                del self._newest[gone]

    def distance(self, item: T) -> int | None:
        number = self._newest.get(item)
        return None if number is None else self._count - number + 1

    def at(self, distance: int) -> T:
        if not 1 <= distance <= len(self._entries):
            raise BadBytes(f"no entry at distance {distance}")
        return self._entries[-distance][0]


@dataclass
class Coder:
    """The memory of one direction of a connection."""

    kinds: Dictionary[str] = field(default_factory=lambda: Dictionary(1_024, 128 << 10))
    fields: Dictionary[bytes] = field(default_factory=lambda: Dictionary(8_192, 512 << 10))
    replicas: Dictionary[bytes] = field(default_factory=lambda: Dictionary(8_192, 128 << 10))
    incarnations: Dictionary[bytes] = field(default_factory=lambda: Dictionary(1_024, 8 << 10))
    entities: Dictionary[Entity] = field(default_factory=lambda: Dictionary(16_384, 1 << 20))
    ms: int = 0
    rest: int = 0
    done: int = 0

    def heed(self, flags: int) -> None:
        """Forgets everything, if the flags of a frame say that its sender has."""
        if flags & ANEW:
            vars(self).update(vars(Coder()))

    def push_entity(self, entity: Entity) -> None:
        kind, id_ = (part.encode() for part in entity)
        self.entities.push(entity, len(varint(len(kind))) + len(kind) + len(id_))


def split_address(address: bytes) -> tuple[bytes, bytes]:
    """The prefix (class and name) and the key."""
    end = 3 + int.from_bytes(address[1:3], "big")
    if len(address) < end or len(address) < 3:
        raise BadBytes("an address that ends within its name")
    return address[:end], address[end:]


# ---------------------------------------------------------------- reading rows


class RowReader:
    """Reads the three sections of one frame, side by side."""

    def __init__(self, coder: Coder, sections: bytes) -> None:
        reader = Reader(sections)
        self._coder = coder
        self._shape = Reader(reader.slice())
        self._stamps = Reader(reader.slice())
        self._values = Reader(reader.take(reader.left()))
        self._edits: deque[Header] = deque(maxlen=EDITS_NAMED)

    def entities(self) -> list[tuple[Entity, Registers]]:
        out = []
        while self._shape.left():
            out.append(self._entity())
        self._end()
        return out

    def edits(self) -> list[Edit]:
        out: list[Edit] = []
        number = 0
        while self._shape.left():
            step = self._shape.varint()
            if out and step == 0:
                raise BadBytes("numbers of edits that do not rise")
            number += step
            out.append(Edit(number, [self._entity() for _ in range(self._shape.varint())]))
        self._end()
        return out

    def _end(self) -> None:
        for section in (self._stamps, self._values):
            section.end()

    def _entity(self) -> tuple[Entity, Registers]:
        coder, shape = self._coder, self._shape
        if distance := shape.varint():
            entity = coder.entities.at(distance)
        else:
            if kind_distance := shape.varint():
                kind = coder.kinds.at(kind_distance)
            else:
                kind = shape.text()
                if not 1 <= len(kind.encode()) <= 255:
                    raise BadBytes("a kind of no bytes, or of more than 255")
                coder.kinds.push(kind, len(kind.encode()))
            entity = (kind, shape.text())
            coder.push_entity(entity)
        registers: Registers = {}
        last = b""
        count = shape.varint()
        if count == 0:
            raise BadBytes("an entity without registers")
        for _ in range(count):
            address, register = self._register()
            if address <= last:
                raise BadBytes("addresses that do not rise")
            register.check()
            registers[address] = register
            last = address
        return entity, registers

    def _register(self) -> tuple[bytes, Register]:
        coder, shape = self._coder, self._shape
        first = shape.byte()
        form, distance = first & 7, first >> 3
        if distance == 0:
            prefix = shape.slice()
            if split_address(prefix)[1]:
                raise BadBytes("a prefix with a key")
            coder.fields.push(prefix, len(prefix))
        else:
            prefix = coder.fields.at(shape.varint() if distance == 31 else distance)
        match prefix[0]:
            case 0 | 1 | 2:
                key = b""
            case 4:
                key = self._replica(shape, shape.varint())
            case _:
                key = shape.slice()
        return prefix + key, self._state(form)

    def _state(self, form: int) -> Register:
        if form == 7:
            return self._full()
        if form == 6:
            header = self._edit_reference()
            below = self._shape.varint()
            if below > header.stamp.time:
                raise BadBytes("a floor before 1970")
            floor = Stamp(header.stamp.generation, header.stamp.time - below, bytes(16))
        else:
            header = self._edit(form % 3)
            floor = header.stamp if form < 3 else LOWEST
        return Register(floor, (Candidate(header, self._values.value()),))

    def _edit(self, which: int) -> Header:
        """The last edit (0), a new one (1), or an earlier one (2), which is the last from then on."""
        if which == 1:
            return self._header()
        header = self._named(self._shape.varint() + 1 if which == 2 else 1)
        if which == 2:
            self._edits.append(header)
        return header

    def _edit_reference(self) -> Header:
        distance = self._shape.varint()
        return self._named(distance) if distance else self._header()

    def _named(self, distance: int) -> Header:
        if not 1 <= distance <= len(self._edits):
            raise BadBytes(f"no edit at distance {distance}")
        return self._edits[-distance]

    def _full(self) -> Register:
        shape, stamps = self._shape, self._stamps
        candidate_count, seen_count = shape.varint(), shape.varint()
        match shape.byte():
            case 0:
                floor = LOWEST
            case 1:
                floor = shape.plain_stamp()
            case _:
                raise BadBytes("a floor that is neither there nor not")
        headers = [self._edit_reference() for _ in range(candidate_count)]
        seen: dict[bytes, Moment] = {}
        last = b""
        for _ in range(seen_count):
            replica = self._replica(stamps, stamps.varint())
            if seen and replica <= last:
                raise BadBytes("seen entries that do not rise")
            seen[replica] = (stamps.varint(), self._time())
            last = replica
        return Register(floor, tuple(Candidate(header, self._values.value()) for header in headers), seen)

    def _header(self) -> Header:
        coder, stamps = self._coder, self._stamps
        first = stamps.varint()
        replica = self._replica(stamps, first >> 2)
        generation = rank = 0
        if first & 2:
            generation, rank = stamps.varint(), stamps.byte()
            if generation > 0xFFFF or (generation == 0 and rank == 0):
                raise BadBytes("a generation or rank that cannot be")
        time = self._time()
        saw = None
        if first & 1:
            if distance := stamps.varint():
                incarnation = coder.incarnations.at(distance)
            else:
                incarnation = stamps.take(8)
                coder.incarnations.push(incarnation, 8)
            coder.done = (coder.done + stamps.zigzag()) & U64
            saw = Saw(incarnation, coder.done)
        header = Header(Stamp(generation, time, replica), rank, saw)
        self._edits.append(header)
        return header

    def _replica(self, reader: Reader, distance: int) -> bytes:
        if distance:
            return self._coder.replicas.at(distance)
        replica = reader.take(16)
        self._coder.replicas.push(replica, 16)
        return replica

    def _time(self) -> int:
        coder = self._coder
        step = self._stamps.zigzag()
        coder.ms = (coder.ms + step) & U64
        coder.rest = (coder.rest + self._stamps.zigzag()) & U64 if step == 0 else self._stamps.varint()
        time = coder.ms * UNITS_A_SECOND // 1000 + coder.rest
        if time > TIME_MAX:
            raise BadBytes("a time of 2106 or later")
        return time


# ---------------------------------------------------------------- writing rows


class RowWriter:
    """Writes the three sections of one frame."""

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self._shape, self._stamps, self._values = bytearray(), bytearray(), bytearray()
        self._edits: deque[Header] = deque(maxlen=EDITS_NAMED)
        self._number = 0

    def sections(self) -> bytes:
        return slice_(bytes(self._shape)) + slice_(bytes(self._stamps)) + bytes(self._values)

    def size(self) -> int:
        return len(self._shape) + len(self._stamps) + len(self._values)

    def edit(self, edit: Edit) -> None:
        self._shape += varint(edit.number - self._number) + varint(len(edit.entities))
        self._number = edit.number
        for entity, registers in edit.entities:
            self.entity(entity, registers)

    def entity(self, entity: Entity, registers: Registers) -> None:
        coder = self._coder
        if distance := coder.entities.distance(entity):
            self._shape += varint(distance)
        else:
            kind, id_ = (part.encode() for part in entity)
            self._shape.append(0)
            if distance := coder.kinds.distance(entity[0]):
                self._shape += varint(distance)
            else:
                self._shape += b"\x00" + slice_(kind)
                coder.kinds.push(entity[0], len(kind))
            self._shape += slice_(id_)
            coder.push_entity(entity)
        self._shape += varint(len(registers))
        for address in sorted(registers):
            self._register(address, registers[address])

    def _register(self, address: bytes, register: Register) -> None:
        form, edit_distance = self._form(register)
        prefix, key = split_address(address)
        distance = self._coder.fields.distance(prefix)
        if distance is None:
            self._shape += bytes([form]) + slice_(prefix)
            self._coder.fields.push(prefix, len(prefix))
        elif distance < 31:
            self._shape.append(form | distance << 3)
        else:
            self._shape += bytes([form | 31 << 3]) + varint(distance)
        if prefix[0] == 4:
            self._shape += self._replica(key)
        elif prefix[0] > 2:
            self._shape += slice_(key)
        self._state(register, form, edit_distance)
        for candidate in register.candidates:
            self._values += candidate.value

    def _form(self, register: Register) -> tuple[int, int]:
        """The shortest form, and the distance of its edit, 0 for one that was not told in this frame."""
        if len(register.candidates) != 1 or register.seen:
            return 7, 0
        header = register.newest.header
        distance = self._edit_distance(header)
        which = {0: 1, 1: 0}.get(distance, 2)
        if register.floor == header.stamp:
            return which, distance
        if register.floor == LOWEST:
            return 3 + which, distance
        floor = register.floor
        margin = floor.generation == header.stamp.generation and floor.replica == bytes(16)
        return (6 if margin else 7), distance

    def _state(self, register: Register, form: int, distance: int) -> None:
        header = register.candidates[0].header
        if form < 6:
            if form % 3 == 1:
                self._header(header)
            elif form % 3 == 2:
                self._shape += varint(distance - 1)
                self._edits.append(header)
        elif form == 6:
            self._edit_reference(header)
            self._shape += varint(header.stamp.time - register.floor.time)
        else:
            self._full(register)

    def _full(self, register: Register) -> None:
        self._shape += varint(len(register.candidates)) + varint(len(register.seen))
        self._shape += b"\x00" if register.floor == LOWEST else b"\x01" + plain_stamp(register.floor)
        for candidate in register.candidates:
            self._edit_reference(candidate.header)
        for replica in sorted(register.seen):
            generation, time = register.seen[replica]
            self._stamps += self._replica(replica) + varint(generation)
            self._time(time)

    def _edit_distance(self, header: Header) -> int:
        for distance, told in enumerate(reversed(self._edits), 1):
            if told == header:
                return distance
        return 0

    def _edit_reference(self, header: Header) -> None:
        distance = self._edit_distance(header)
        self._shape += varint(distance)
        if distance == 0:
            self._header(header)

    def _header(self, header: Header) -> None:
        coder, stamp = self._coder, header.stamp
        ranked = stamp.generation != 0 or header.rank != 0
        flags = ranked << 1 | (header.saw is not None)
        distance = coder.replicas.distance(stamp.replica)
        self._stamps += varint((distance or 0) << 2 | flags)
        if distance is None:
            self._stamps += stamp.replica
            coder.replicas.push(stamp.replica, 16)
        if ranked:
            self._stamps += varint(stamp.generation) + bytes([header.rank])
        self._time(stamp.time)
        if header.saw is not None:
            if distance := coder.incarnations.distance(header.saw.incarnation):
                self._stamps += varint(distance)
            else:
                self._stamps += b"\x00" + header.saw.incarnation
                coder.incarnations.push(header.saw.incarnation, 8)
            self._stamps += zigzag(header.saw.done - coder.done)
            coder.done = header.saw.done
        self._edits.append(header)

    def _replica(self, replica: bytes) -> bytes:
        if distance := self._coder.replicas.distance(replica):
            return varint(distance)
        self._coder.replicas.push(replica, 16)
        return b"\x00" + replica

    def _time(self, time: int) -> None:
        coder = self._coder
        ms = _ms(time)
        rest = time - ms * UNITS_A_SECOND // 1000
        self._stamps += zigzag(ms - coder.ms)
        self._stamps += zigzag(rest - coder.rest) if ms == coder.ms else varint(rest)
        coder.ms, coder.rest = ms, rest


def _ms(time: int) -> int:
    """The greatest millisecond that does not begin after the time."""
    return (time * 1000 + 999) // UNITS_A_SECOND


# ---------------------------------------------------------------- whole frames with rows


@dataclass(frozen=True, slots=True)
class Page:
    """A DELTA."""

    more: bool
    first: bool
    checkpoint: bool
    at: int
    incarnation: bytes | None
    entities: list[tuple[Entity, Registers]]


def read_page(coder: Coder, body: bytes) -> Page:
    reader = Reader(body)
    flags = reader.byte()
    coder.heed(flags)
    at = reader.varint()
    incarnation = reader.take(8) if flags & 2 else None
    entities = RowReader(coder, reader.take(reader.left())).entities()
    return Page(bool(flags & 1), bool(flags & 4), bool(flags & 8), at, incarnation, entities)


def write_page(coder: Coder, page: Page) -> bytes:
    flags = page.more | (page.incarnation is not None) << 1 | page.first << 2 | page.checkpoint << 3
    rows = RowWriter(coder)
    for entity, registers in page.entities:
        rows.entity(entity, registers)
    return bytes([Type.DELTA, flags]) + varint(page.at) + (page.incarnation or b"") + rows.sections()


def write_push(coder: Coder, heard: int, head: int, incarnation: bytes | None, edits: Iterable[Edit]) -> bytes:
    rows = RowWriter(coder)
    for edit in edits:
        rows.edit(edit)
    flags = 2 if incarnation else 0
    return bytes([Type.PUSH, flags]) + varint(heard) + varint(head) + (incarnation or b"") + rows.sections()


def read_push(coder: Coder, body: bytes) -> tuple[int, int, bytes | None, list[Edit]]:
    reader = Reader(body)
    flags = reader.byte()
    coder.heed(flags)
    heard, head = reader.varint(), reader.varint()
    incarnation = reader.take(8) if flags & 2 else None
    return heard, head, incarnation, RowReader(coder, reader.take(reader.left())).edits()


def read_fetched(coder: Coder, body: bytes) -> tuple[bool, list[tuple[Entity, Registers]]]:
    coder.heed(body[0])
    return bool(body[0] & 1), RowReader(coder, body[1:]).entities()


@dataclass(frozen=True, slots=True)
class LostWrite:
    """A write that lost to one whose author had not seen it."""

    hidden: bool
    kind: str
    id: str
    address: bytes
    value: bytes
    winner: bytes
    stamp: Stamp
    winner_stamp: Stamp


def read_lost(body: bytes) -> tuple[bytes, int, int, list[LostWrite]]:
    """Replica, number of the last, how many were ever dropped, and the writes."""
    reader = Reader(body)
    replica, last, dropped, count = reader.take(16), reader.varint(), reader.varint(), reader.varint()
    lost = []
    for _ in range(count):
        one = Reader(reader.slice())
        hidden = one.byte() == 1
        kind, id_, address, value, winner = one.text(), one.text(), one.slice(), one.slice(), one.slice()
        lost.append(LostWrite(hidden, kind, id_, address, value, winner, one.plain_stamp(), one.plain_stamp()))
        one.end()
    reader.end()
    return replica, last, dropped, lost

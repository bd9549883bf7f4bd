"""Deterministic CBOR: the values of the wire, and the maps of control frames.

The decoder refuses what the page refuses, so that what it takes it would write in the same bytes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

NESTING_MAX: Final = 32
CONTROL_NESTING_MAX: Final = 16


class BadBytes(ValueError):
    """Bytes that are no frame, or break its rules."""


@dataclass(frozen=True, slots=True)
class Later:
    """A value of a later version: a tag over a byte string, kept as it is."""

    tag: int
    content: bytes


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""What a removed key of a map holds; not a value."""


def encode(value: Any) -> bytes:
    """The one byte form of a value. Maps of control frames may have integer keys."""
    match value:
        case None:
            return b"\xf6"
        case False:
            return b"\xf4"
        case True:
            return b"\xf5"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case float():
            return _float(value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            text = value.encode()
            return _head(3, len(text)) + text
        case list() | tuple():
            return _head(4, len(value)) + b"".join(encode(item) for item in value)
        case dict():
            pairs = sorted(
                ((encode(key), encode(item)) for key, item in value.items()), key=lambda p: (len(p[0]), p[0])
            )
            return _head(5, len(pairs)) + b"".join(key + item for key, item in pairs)
        case Later(tag, content):
            return _head(6, tag) + encode(content)
        case _ if value is ABSENT:
            return b"\xf7"
    raise TypeError(f"no value of the wire: {value!r}")


def decode(data: bytes) -> Any:
    """A whole value, or `ABSENT`."""
    value, end = read(data, 0)
    if end != len(data):
        raise BadBytes("bytes after the value")
    return value


def decode_control(data: bytes) -> dict[int, Any]:
    """The map of a control frame, with integer keys."""
    value, end = _item(data, 0, CONTROL_NESTING_MAX, control=True)
    if end != len(data):
        raise BadBytes("bytes after the map of a control frame")
    if not isinstance(value, dict):
        raise BadBytes("a control frame is a map")
    return value


def read(data: bytes, at: int) -> tuple[Any, int]:
    """The canonical value, or `ABSENT`, at an offset, and the offset after it."""
    if data[at : at + 1] == b"\xf7":
        return ABSENT, at + 1
    return _item(data, at, NESTING_MAX, control=False)


def order_key(value: Any) -> tuple[Any, ...]:
    """Sorts values in their total order."""
    match value:
        case None:
            return (0,)
        case False:
            return (1,)
        case True:
            return (2,)
        case int():
            return (3, 0, value, 0)
        case float():
            return (3, 1, 0, 0) if math.isnan(value) else (3, 0, value, 1)
        case str():
            return (4, value.encode())
        case bytes():
            return (5, value)
        case list():
            return (6, [order_key(item) for item in value])
        case dict():
            return (7, [(key.encode(), order_key(value[key])) for key in sorted(value, key=str.encode)])
        case Later(tag, content):
            return (8, tag, content)
        case _ if value is ABSENT:
            return (-1,)
    raise TypeError(f"no value of the wire: {value!r}")


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            return bytes([major << 5 | info]) + number.to_bytes(size, "big")
    raise ValueError(f"{number} does not fit 64 bits")


def _float(value: float) -> bytes:
    if math.isnan(value):
        return b"\xf9\x7e\x00"
    if value == 0.0:
        return b"\xf9\x00\x00"
    for lead, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            short = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, short)[0] == value:
            return lead + short
    return b"\xfb" + struct.pack(">d", value)


def _take(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    end = at + size
    if end > len(data):
        raise BadBytes("the frame ends within a value")
    return data[at:end], end


def _item(data: bytes, at: int, nesting: int, *, control: bool) -> tuple[Any, int]:
    start = at
    first, at = _take(data, at, 1)
    major, info = first[0] >> 5, first[0] & 31
    if major == 7:
        return _simple(data, start, at, info)
    if info < 24:
        number = info
    elif info <= 27:
        raw, at = _take(data, at, 1 << (info - 24))
        number = int.from_bytes(raw, "big")
        if _head(major, number) != data[start:at]:
            raise BadBytes("a length or an integer that is not in its shortest form")
    else:
        raise BadBytes("an indefinite length, or a reserved one")
    if major in (0, 1):
        if number >= 1 << 63 and not (control and major == 0):
            raise BadBytes("an integer that does not fit 64 bits with a sign")
        return (number if major == 0 else -1 - number), at
    if major == 2:
        return _take(data, at, number)
    if major == 3:
        raw, at = _take(data, at, number)
        try:
            return raw.decode(), at
        except UnicodeDecodeError as error:
            raise BadBytes("text that is not UTF-8") from error
    if major == 6:
        content, end = _item(data, at, nesting, control=control)
        if not isinstance(content, bytes):
            raise BadBytes("a tag over something else than bytes")
        return Later(number, content), end
    if nesting == 0:
        raise BadBytes("values are nested too deep")
    if number > len(data) - at:
        raise BadBytes("a count above what the frame can hold")
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _item(data, at, nesting - 1, control=control)
            items.append(item)
        return items, at
    return _map(data, at, number, nesting - 1, control=control)


def _map(data: bytes, at: int, count: int, nesting: int, *, control: bool) -> tuple[dict[Any, Any], int]:
    pairs: dict[Any, Any] = {}
    last: tuple[int, bytes] | None = None
    for _ in range(count):
        start = at
        key, at = _item(data, at, 0, control=control)
        if not isinstance(key, int if control else str) or isinstance(key, bool):
            raise BadBytes(f"a key of the wrong type: {key!r}")
        order = (at - start, data[start:at])
        if last is not None and order <= last:
            raise BadBytes("keys of a map that do not rise")
        last = order
        pairs[key], at = _item(data, at, nesting, control=control)
    return pairs, at


def _simple(data: bytes, start: int, at: int, info: int) -> tuple[Any, int]:
    if info in (20, 21, 22):
        return {20: False, 21: True, 22: None}[info], at
    if info in (25, 26, 27):
        size, form = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}[info]
        raw, at = _take(data, at, size)
        value: float = struct.unpack(form, raw)[0]
        if _float(value) != data[start:at]:
            raise BadBytes("a float that is not in its shortest form")
        return value, at
    raise BadBytes("a simple value that is none of the wire's")

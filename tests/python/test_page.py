"""The examples of docs/protocol.md, read from the page itself, decoded and made again byte for byte."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from rivus_client import cbor, wire
from rivus_client.cbor import BadBytes
from rivus_client.register import LOWEST, Candidate, Header, Register, Saw, Stamp, digest_of, join, units, write
from rivus_client.store import LIFE, address
from rivus_client.wire import Coder, Edit, Page, RowReader, RowWriter, Type

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()
REPLICA = bytes(15) + b"\x01"
T1 = ("task", "t1")


def examples() -> list[tuple[str, bytes]]:
    """Who sends, and the bytes, of each frame in the page's last section."""
    named = {"replica 1": REPLICA, "replica 2": bytes(15) + b"\x02", "fingerprint": bytes(range(16))}
    out: list[tuple[str, bytearray]] = []
    for line in re.findall(r"^(?:[CS] .*|  .*)$", PAGE.split("## Examples")[1], re.MULTILINE):
        if not line.startswith(" "):
            out.append((line[0], bytearray()))
        for hexes, name in re.findall(r"([0-9a-f]{2})(?= |$)|\((?:16 bytes: )?([a-z0-9 ]+)\)", _before_words(line[2:])):
            out[-1][1].extend(bytes.fromhex(hexes) if hexes else named[name])
    return [(who, bytes(data)) for who, data in out]


def _before_words(line: str) -> str:
    return re.split(r"(?<=\S) {2,}", line.strip())[0]


def frame(kind: Type, nth: int = 0) -> bytes:
    return [data for _, data in examples() if data[0] == kind][nth]


def example_edit() -> list[tuple[wire.Entity, wire.Registers]]:
    header = Header(Stamp(0, units(1000), REPLICA))
    registers = {
        LIFE: write(None, header, None, b"\xf5"),
        address(1, "owner"): write(None, header, 5000, cbor.encode("ann")),
        address(1, "title"): write(None, header, 0, cbor.encode("x")),
        address(3, "tags", b"red"): write(None, header, None, b"\xf5"),
        address(4, "views", REPLICA): write(None, header, 0, cbor.encode(2)),
    }
    return [(T1, registers)]


def test_the_examples_are_all_read() -> None:
    assert [(who, Type(data[0]).name) for who, data in examples()] == [
        ("C", "HELLO"), ("S", "WELCOME"), ("C", "RESET"), ("S", "SUBSCRIBE"), ("C", "DELTA"), ("C", "CHECKPOINT"),
        ("S", "SYNCED"), ("C", "PUSH"), ("S", "ACK"), ("C", "SUBSCRIBE"), ("S", "EQUAL"), ("C", "SYNCED"), ("C", "GOAWAY"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Type.HELLO, Type.WELCOME, Type.RESET, Type.GOAWAY])
def test_control_frames_are_made_again(kind: Type) -> None:
    data = frame(kind)
    assert bytes([kind]) + cbor.encode(cbor.decode_control(data[1:])) == data


def test_hello_means_what_the_page_says() -> None:
    about = {0: 1, 1: REPLICA, 2: [[0x101, 1]], 3: 1, 4: bytes(range(16)), 5: 1000}
    assert cbor.decode_control(frame(Type.HELLO)[1:]) == {0: 1, 1: 1, 2: 7, 3: about, 5: True}


def test_the_delta_is_read_and_made_again() -> None:
    data = frame(Type.DELTA)
    page = wire.read_page(Coder(), data[1:])
    assert page == Page(False, False, False, 1, None, example_edit())
    assert wire.write_page(Coder(), page) == data


def test_the_checkpoint_is_the_digest_of_the_delta() -> None:
    digest = sum(digest_of(*T1, addr, register) for addr, register in example_edit()[0][1].items()) % (1 << 128)
    assert frame(Type.CHECKPOINT) == b"\x08\x01" + digest.to_bytes(16, "big") + b"\x05\x00"


def test_the_push_is_read_and_made_again_by_coders_that_know_the_delta() -> None:
    data = frame(Type.PUSH)
    reader, writer = Coder(), Coder()
    wire.write_page(writer, wire.read_page(reader, frame(Type.DELTA)[1:]))
    # The page's second connection starts with empty dictionaries.
    heard, head, incarnation, edits = wire.read_push(Coder(), data[1:])
    header = Header(Stamp(0, units(2000), REPLICA), saw=Saw((0x102).to_bytes(8, "big"), 1))
    title = Register(header.stamp, (Candidate(header, cbor.encode("y")),))
    assert (heard, head, incarnation, edits) == (0, 2, None, [Edit(2, [(T1, {address(1, "title"): title})])])
    assert wire.write_push(Coder(), heard, head, incarnation, edits) == data
    known = wire.write_push(writer, heard, head, incarnation, edits)
    assert len(known) < len(data) and wire.read_push(reader, known[1:])[3] == edits


def test_the_digest_of_the_page_is_that_of_two_registers() -> None:
    life, title, total = re.findall(r"(?:XXH3-128|sum): +([0-9a-f]{32})", PAGE)
    header = Header(Stamp(0, 1 << 32, REPLICA))
    first = digest_of(*T1, LIFE, write(None, header, None, b"\xf5"))
    second = digest_of(*T1, address(1, "title"), write(None, header, 0, cbor.encode("x")))
    assert (f"{first:032x}", f"{second:032x}", f"{(first + second) % (1 << 128):032x}") == (life, title, total)


@pytest.mark.parametrize("seed", range(200))
def test_rows_of_every_form_are_read_as_they_were_written(seed: int) -> None:
    draw = random.Random(seed)
    writer, reader = Coder(), Coder()
    replicas = [bytes([n]) * 16 for n in range(1, 6)]
    forms: set[int] = set()

    def header() -> Header:
        saw = Saw(bytes([draw.randrange(4)]) * 8, draw.randrange(1000)) if draw.random() < 0.3 else None
        stamp = Stamp(
            draw.choice([0, 0, 7]), units(draw.randrange(5_000, 9_000)) + draw.randrange(9), draw.choice(replicas)
        )
        return Header(stamp, draw.choice([0, 0, 5]), saw)

    headers = [header() for _ in range(6)]
    for _ in range(4):
        rows = []
        for entity in {("task", f"t{draw.randrange(9)}") for _ in range(5)}:
            registers = {}
            for name in {f"f{draw.randrange(40)}" for _ in range(12)}:
                parts = [
                    write(None, draw.choice(headers), draw.choice([0, 3000, None]), cbor.encode(draw.random()))
                    for _ in "ab"
                ]
                # Equal stamps with other content, or two headers of one stamp, come from copies alone.
                register = parts[0] if draw.random() < 0.7 else join(parts[0], parts[1])
                registers[address(1, name)] = register
                forms.add(RowWriter(Coder())._form(register)[0])
            rows.append((entity, registers))
        page = Page(False, True, True, 7, None, rows)
        anew = draw.random() < 0.3
        if anew:
            writer = Coder()
        frame = bytearray(wire.write_page(writer, page))
        frame[1] |= wire.ANEW * anew
        assert wire.read_page(reader, bytes(frame[1:])) == page
    assert {1, 4, 6, 7} <= forms, f"seed {seed}"


def test_all_eight_forms_are_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    forms: list[int] = []
    state = RowReader._state

    def noting(self: RowReader, form: int) -> Register:
        forms.append(form)
        return state(self, form)

    monkeypatch.setattr(RowReader, "_state", noting)
    a, b = (Header(Stamp(0, units(ms), REPLICA)) for ms in (9000, 9001))
    other = Header(Stamp(0, units(9002), bytes(16)[:15] + b"\x02"))
    registers = {
        address(1, name): write(None, by, margin, b"\xf5")
        for name, by, margin in [("a", a, 0), ("b", a, 0), ("c", b, 0), ("d", a, 0), ("e", a, None), ("f", b, None)]
    }
    registers[address(1, "g")] = write(None, a, 5000, b"\xf5")
    registers[address(1, "h")] = join(registers[address(1, "e")], write(None, other, None, b"\xf4"))
    registers[address(1, "i")] = write(
        registers[address(1, "h")], Header(Stamp(0, units(9010), bytes(16))), None, b"\xf4"
    )
    registers[address(1, "j")] = write(None, Header(Stamp(3, 5, REPLICA), 9), None, b"\xf6")
    page = Page(False, False, False, 1, None, [(T1, registers)])
    assert wire.read_page(Coder(), wire.write_page(Coder(), page)[1:]) == page
    assert set(forms) == set(range(8))


@pytest.mark.parametrize(
    "bad", ["1800", "fb3ff0000000000000", "f97e01", "5f40ff", "a2616201616101", "a1616100616100", "c100", "81" * 33 + "f6", "f8ff"]
)  # fmt: skip
def test_values_of_another_form_are_refused(bad: str) -> None:
    with pytest.raises(BadBytes):
        cbor.decode(bytes.fromhex(bad))


@pytest.mark.parametrize("seed", range(50))
def test_joining_is_commutative_associative_and_idempotent(seed: int) -> None:
    draw = random.Random(seed)

    def history() -> Register:
        state: Register | None = None
        for _ in range(draw.randrange(1, 4)):
            at = units(draw.randrange(1000, 20_000)) + draw.randrange(3)
            newest = state.newest.stamp if state else LOWEST
            stamp = Stamp(newest.generation + (newest.time >= at), at, bytes([draw.randrange(4)]) * 16)
            state = write(state, Header(stamp, draw.randrange(2)), 5000, cbor.encode(draw.randrange(3)))
        assert state is not None
        return state

    a, b, c = history(), history(), history()
    assert join(a, a) == a and join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c)), f"seed {seed}"
    for one in (a, b, join(a, b), join(join(a, b), c)):
        one.check()

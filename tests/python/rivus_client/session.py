"""A connection to a hub: greeting, pushing, reading, and what a checkpoint proves."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as dial

from . import cbor, wire
from .cbor import BadBytes
from .store import START, Cursor, Pending, Store
from .wire import Code, Coder, Entity, Page, Reader, Registers, Type, varint

VERSION: Final = 1
ZSTD: Final = 1
PUSHES_MAX: Final = 4
EDITS_A_PUSH: Final = 256
PAGE_BYTES: Final = 256 << 10
WINDOW_BYTES: Final = 4 * PAGE_BYTES
PUSH_ROUNDS_MAX: Final = 20
PAGE_BYTES: Final = 256 << 10
WAIT_S: Final = 20.0


SPOT: Final = 65_536
"""Added to a verdict's code where it says what it is about."""


class Gone(Exception):
    """The other side ended the connection: GOAWAY's code and message, or none."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Copied(Exception):
    """The store went on under a new id. Connect again."""


class Diverged(Exception):
    """Digests at one position that differ, after everything was read again."""


@dataclass
class Counts:
    """What a session did."""

    frames: int = 0
    pages: int = 0
    registers: int = 0
    accepted: int = 0
    verdicts: list[int] = field(default_factory=list)
    compared: int = 0
    equal: bool = False
    compressed: int = 0
    windows: int = 0


class Session:
    """One connection of a store to a hub that judges its edits."""

    def __init__(
        self,
        store: Store,
        url: str,
        *,
        token: str | None = None,
        live: bool = False,
        on_frame: Callable[[int, bytes], None] = lambda kind, body: None,
    ) -> None:
        self.store = store
        self.counts = Counts()
        self._live = live
        self._on_frame = on_frame
        self._in, self._out = Coder(), Coder()
        self._pushes: deque[list[Pending]] = deque()
        self._answers = 0
        self._settled: list[tuple[list[Pending], dict[int, tuple[int, str]], int]] = []
        self._caught_up = False
        self._fetched: list[tuple[Entity, Registers]] = []
        self._asked = 0
        self.is_cut = False
        self._everything = False
        self._repaired = False
        self._skip_pages = False
        self._sent = self._sent_taken = self._taken = self._told = 0
        self._peer_zstd = False
        self._told_incarnation: int | None = None
        self._socket = ExitStack()
        dialled = dial(url, compression=None, max_size=wire.FRAME_MAX + 1024, open_timeout=WAIT_S)
        self._ws: ClientConnection = self._socket.enter_context(dialled)
        try:
            self._greet(token)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._socket.close()

    def close(self, code: int = Code.CLOSED, message: str = "") -> None:
        self._control(Type.GOAWAY, {0: int(code), 1: message})
        self._socket.close()

    def cut(self) -> None:
        """Ends the connection without a word, as a network does."""
        self.is_cut = True
        self._ws.socket.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------ frames

    def send(self, frame: bytes) -> None:
        # What the other side said before it went is read next.
        with suppress(ConnectionClosed):
            self._ws.send(wire.compress(frame) if self._peer_zstd else frame)

    def recv(self, timeout: float = WAIT_S) -> tuple[int, bytes]:
        """The next frame's type and body."""
        try:
            raw = self._ws.recv(timeout=timeout)
        except ConnectionClosed as error:
            raise Gone(None, str(error)) from error
        if not isinstance(raw, bytes):
            raise BadBytes("a text message")
        self.counts.compressed += raw[:1] == b"\x00"
        frame = wire.decompress(raw)
        if not frame:
            raise BadBytes("an empty frame")
        self.counts.frames += 1
        kind, body = frame[0], frame[1:]
        if kind == Type.GOAWAY:
            said = cbor.decode_control(body)
            raise Gone(said[0], said[1])
        self._on_frame(kind, body)
        return kind, body

    def _control(self, kind: Type, body: Any) -> None:
        self.send(bytes([kind]) + cbor.encode(body))

    # ------------------------------------------------------------ greeting

    def _greet(self, token: str | None) -> None:
        store = self.store
        hello: dict[int, Any] = {0: VERSION, 1: VERSION, 2: ZSTD, 3: self._about(), 5: True}
        if token is not None:
            hello[4] = token
        self._control(Type.HELLO, hello)
        kind, body = self.recv()
        if kind != Type.WELCOME:
            raise BadBytes(f"frame {kind} before WELCOME")
        welcome = cbor.decode_control(body)
        self.rank: int = welcome[4]
        store.rank = self.rank
        self._peer_zstd = bool(welcome[1] & ZSTD)
        about = welcome[2]
        self.hub_id: int = about[0]
        self._hub_incarnations: list[tuple[bytes, int]] = [(i.to_bytes(8, "big"), first) for i, first in about[2]]
        self._hub_head: int = about[3]
        if welcome[0] != VERSION:
            self.close(Code.VERSION, "only version 1 was offered")
            raise BadBytes("a version that was not offered")
        if not welcome[3] or store.authority not in (None, self.hub_id):
            self.close(Code.NOT_AUTHORITY, "the store syncs with another authority")
            raise Gone(Code.NOT_AUTHORITY, "not this store's authority")
        if 5 in welcome and not self._knows_own(welcome[5]):
            store.start_over()
            self.close(Code.COPIED, "the store took a new id")
            raise Copied
        if about[4] != store.schema.fingerprint():
            self._agree()
        first_meeting = store.authority is None
        store.authority = self.hub_id
        lost = store.cursor != START and not self._knows(store.cursor)
        if lost or (first_meeting and store.confirmed):
            self._reset(store.cursor)

    def _about(self) -> dict[int, Any]:
        store = self.store
        if store.incarnations:
            self._told_incarnation = store.incarnations[-1][0]
        return {
            0: store.id,
            1: b"".join(store.replicas),
            2: [list(pair) for pair in store.incarnations[-32:]],
            3: store.head,
            4: store.schema.fingerprint(),
            5: store.now_ms(),
        }

    def _agree(self) -> None:
        self._control(Type.SCHEMA, {0: self.store.schema.policies()})
        kind, body = self.recv()
        if kind != Type.SCHEMA:
            raise BadBytes(f"frame {kind} before SCHEMA")
        theirs = {(k, f): policy for k, f, policy in cbor.decode_control(body)[0]}
        for k, f, policy in self.store.schema.policies():
            other = theirs.get((k, f), policy)
            if other != policy:
                message = f"{k}.{f or 'life'}: {policy} here, {other} there"
                self.close(Code.SCHEMA, message)
                raise Gone(Code.SCHEMA, message)

    def _knows_own(self, reset: dict[int, Any]) -> bool:
        """Whether a position is one of this store's own past."""
        return _knows([(i, first) for i, first in self.store.incarnations], self.store.head, reset[0], reset[1])

    def _knows(self, cursor: Cursor) -> bool:
        return _knows(self._hub_incarnations, self._hub_head, cursor.incarnation, cursor.at)

    def _reset(self, cursor: Cursor) -> None:
        """Gives the authority what is confirmed here, and reads everything afterwards."""
        store = self.store
        self._control(Type.RESET, {0: int.from_bytes(cursor.incarnation, "big"), 1: cursor.at, 2: []})
        store.cursor, store.authority_head, self._everything = START, 0, True
        kind, _ = self.recv()
        if kind == Type.SUBSCRIBE:
            self._upload()
            kind, body = self.recv()
            while kind == Type.WINDOW:
                self._handle(kind, body)
                kind, body = self.recv()
        if kind != Type.SYNCED:
            raise BadBytes(f"frame {kind} in place of SYNCED")

    def _upload(self) -> None:
        store = self.store
        rows = sorted((seq, entity) for entity, seq in store.row_seqs.items())
        seq_of_head = store.head
        pages: list[list[Entity]] = [[]]
        for _, entity in rows:
            if len(pages[-1]) == 500:
                pages.append([])
            pages[-1].append(entity)
        for index, entities in enumerate(pages):
            last = index == len(pages) - 1
            at = seq_of_head if last else store.row_seqs[entities[-1]]
            held = [(entity, store.confirmed[entity]) for entity in entities]
            page = Page(not last, index == 0, last, at, self._new_incarnation(), held)
            self._send_page(wire.write_page(self._out, page))
        checkpoint = varint(seq_of_head) + store.digest + varint(store.count) + b"\x00"
        self.send(bytes([Type.CHECKPOINT]) + checkpoint)

    def _send_page(self, page: bytes) -> None:
        while self._sent - self._sent_taken >= WINDOW_BYTES:
            self._handle(*self.recv())
        self._sent += len(page)
        self.send(page)

    def _window(self, reader: Reader) -> None:
        taken = reader.varint()
        reader.end()
        if not self._sent_taken <= taken <= self._sent:
            raise BadBytes("a WINDOW beyond what was sent, or back")
        self._sent_taken = taken

    def _new_incarnation(self) -> bytes | None:
        newest = self.store.incarnations[-1][0] if self.store.incarnations else None
        if newest == self._told_incarnation or newest is None:
            return None
        self._told_incarnation = newest
        return newest.to_bytes(8, "big")

    # ------------------------------------------------------------ pushing

    def push(self) -> None:
        """Brings every pending edit to the hub; each has its verdict afterwards."""
        store = self.store
        for _ in range(PUSH_ROUNDS_MAX):
            if not store.pending:
                return
            batch = store.pending[:]
            for start in range(0, len(batch), EDITS_A_PUSH):
                while len(self._pushes) >= PUSHES_MAX:
                    self._handle(*self.recv())
                if self._answers_refuse:
                    break
                self.send_push(batch[start : start + EDITS_A_PUSH])
            self._drain()
        raise BadBytes(f"edits without a verdict after {PUSH_ROUNDS_MAX} rounds")

    def send_push(self, edits: list[Pending]) -> None:
        """One PUSH, of edits as they are, honest or not."""
        new = self._new_incarnation()
        frame = wire.write_push(self._out, self._answers, self.store.head, new, [p.edit for p in edits])
        self._pushes.append(edits)
        self.send(frame)

    def _drain(self) -> None:
        """Waits for all answers, and settles them together."""
        while self._pushes:
            self._handle(*self.recv())
        settled, self._settled = self._settled, []
        edits: list[Pending] = []
        verdicts: dict[int, tuple[int, str]] = {}
        correction = None
        for batch, exceptions, hub_clock in settled:
            verdicts |= {len(edits) + index: verdict for index, verdict in exceptions.items()}
            edits += batch
            if correction is None and any(code == Code.CLOCK_SKEW for code, _ in exceptions.values()):
                correction = hub_clock - self.store.now_ms()
        self.counts.accepted += len(edits) - len(verdicts)
        self.counts.verdicts += [code for code, _ in verdicts.values()]
        self.store.take_back(verdicts, edits, correction)

    @property
    def _answers_refuse(self) -> bool:
        return any(exceptions for _, exceptions, _ in self._settled)

    def _ack(self, reader: Reader) -> None:
        head, count = reader.varint(), reader.varint()
        hub_clock = 0
        exceptions: dict[int, tuple[int, str]] = {}
        if count:
            hub_clock = int.from_bytes(reader.take(8), "big", signed=True)
        for _ in range(count):
            index, code = reader.varint(), reader.varint()
            message = reader.text()
            if code >= SPOT:
                code -= SPOT
                place = f"{reader.text()} {reader.text()}"
                message += f" ({place}.{reader.text()})" if reader.byte() else f" ({place})"
            exceptions[index] = (code, message)
        reader.end()
        if not self._pushes:
            raise BadBytes("an ACK of nothing")
        self._answers += 1
        self.store.authority_head = max(self.store.authority_head, head)
        self._settled.append((self._pushes.popleft(), exceptions, hub_clock))

    # ------------------------------------------------------------ reading

    def subscribe(self) -> None:
        cursor = self.store.cursor
        told = [incarnation for incarnation, _ in reversed(self._hub_incarnations)]
        index = told.index(cursor.incarnation) + 1 if cursor.incarnation in told else 0
        done, at = (cursor.done, cursor.at) if index else (0, 0)
        flags = self._live | self._everything << 1 | 4
        half = self.store.digest[8:]
        self.send(bytes([Type.SUBSCRIBE, flags]) + varint(index) + varint(done) + varint(at - done) + half)
        self._skip_pages = True
        self._caught_up = False
        self._taken = self._told = 0

    def catch_up(self) -> Counts:
        """Pushes what is pending, reads to the hub's head, and compares the digests there."""
        self.push()
        self.subscribe()
        while not self._caught_up:
            self._handle(*self.recv())
        self._synced()
        return self.counts

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Live: takes frames until something holds."""
        while not condition():
            self._handle(*self.recv())

    def fetch(self, entities: list[Entity]) -> dict[Entity, Registers]:
        """All confirmed registers of some entities, as the hub holds them."""
        asked = b"".join(wire.slice_(kind.encode()) + wire.slice_(id_.encode()) for kind, id_ in entities)
        self._fetched = []
        self._asked += 1
        self.send(bytes([Type.FETCH]) + varint(len(entities)) + asked)
        while self._asked:
            self._handle(*self.recv())
        return dict(self._fetched)

    def _synced(self) -> None:
        self.send(bytes([Type.SYNCED]) + varint(self.store.cursor.done))

    def _handle(self, kind: int, body: bytes) -> None:
        reader = Reader(body)
        match kind:
            case Type.ACK:
                self._ack(reader)
            case Type.DELTA:
                self._page(wire.read_page(self._in, body))
                self._take(1 + len(body))
            case Type.EQUAL:
                self._equal(reader)
            case Type.CHECKPOINT:
                self._checkpoint(reader)
            case Type.LOST:
                self._lost(body)
            case Type.FETCHED:
                more, entities = wire.read_fetched(self._in, body)
                self._fetched += entities
                self._asked -= not more
            case Type.WINDOW:
                self._window(reader)
            case Type.SYNCED:
                pass
            case _ if kind >= 128:
                pass
            case _:
                raise BadBytes(f"frame {kind} does not belong here")

    def _learn(self, incarnation: bytes | None) -> bytes:
        """The hub's newest incarnation, perhaps just told."""
        if incarnation is not None:
            self._hub_incarnations.append((incarnation, 0))
        return self._hub_incarnations[-1][0] if self._hub_incarnations else bytes(8)

    def _page(self, page: Page) -> None:
        store = self.store
        newest = self._learn(page.incarnation)
        self.counts.pages += 1
        self.counts.registers += sum(len(registers) for _, registers in page.entities)
        store.join_confirmed(page.entities)
        self._skip_pages &= not page.first
        if self._skip_pages:
            return
        if page.at < store.cursor.at and not self._everything:
            raise BadBytes("a page that goes back")
        store.cursor = Cursor(newest, store.cursor.done if page.more else page.at, page.at)
        if not page.more and not page.checkpoint:
            self._caught_up = True

    def _take(self, size: int) -> None:
        """Counts a page, and tells the hub that more may come."""
        self._taken += 0 if self._skip_pages else size
        if self._taken - self._told >= PAGE_BYTES:
            self._told = self._taken
            self.counts.windows += 1
            self.send(bytes([Type.WINDOW]) + varint(self._taken))

    def _equal(self, reader: Reader) -> None:
        head = reader.varint()
        newest = self._learn(reader.take(8) if reader.byte() == 1 else None)
        reader.end()
        self.store.cursor = Cursor(newest, head, head)
        self.counts.equal = self._caught_up = True
        self._skip_pages = self._everything = False

    def _checkpoint(self, reader: Reader) -> None:
        store = self.store
        seq, digest, count = reader.varint(), reader.take(16), reader.varint()
        if reader.byte() == 1:
            reader.take(8), reader.varint(), reader.varint()
        reader.end()
        self._everything = False
        if store.cursor.done == seq and not store.pending and seq >= store.authority_head:
            self.counts.compared += 1
            if (digest, count) != (store.digest, store.count):
                if self._repaired:
                    raise Diverged(f"{digest.hex()} of {count} there, {store.digest.hex()} of {store.count} here")
                self._repaired = self._everything = True
                store.cursor = START
                self.subscribe()
                return
        self._caught_up = True

    def _lost(self, body: bytes) -> None:
        replica, last, _, lost = wire.read_lost(body)
        if replica not in self.store.replicas:
            raise BadBytes("LOST about a replica that was not named")
        # A hub that was set back counts anew, so a conflict is known by what it says, not by its number.
        self.store.conflicts += [write for write in lost if write not in self.store.conflicts]
        self.send(bytes([Type.HEARD]) + replica + varint(last))


def _knows(incarnations: list[tuple[Any, int]], head: int, incarnation: Any, seq: int) -> bool:
    if seq == 0 and incarnation in (0, bytes(8)):
        return True
    for index, (own, _) in enumerate(incarnations):
        if own == incarnation:
            end = incarnations[index + 1][1] - 1 if index + 1 < len(incarnations) else head
            return seq <= end
    return False


def sync(store: Store, url: str, *, token: str | None = None) -> Counts:
    """Brings everything pending, takes everything new, compares, and goes."""
    with Session(store, url, token=token) as session:
        return session.catch_up()

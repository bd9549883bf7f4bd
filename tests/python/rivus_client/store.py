"""A store in memory: what is confirmed, what is pending, what shows, and what an edit writes."""

from __future__ import annotations

import json
import secrets
import time as clock_
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import xxhash

from . import cbor
from .cbor import ABSENT
from .register import Candidate, Header, Register, Saw, Stamp, digest_of, join, units, write
from .wire import Edit, Entity, LostWrite, Registers, split_address

LIFE: Final = b"\x00\x00\x00"
DRIFT_MS: Final = 60_000

Op = tuple[Any, ...]
"""One of ("set", field, value), ("add", set, key), ("remove", set, key), ("set_key", map, key, value),
("remove_key", map, key), ("inc", counter, by), ("delete",), ("revive",)."""


class EditError(Exception):
    """An operation that does not fit; its edit has changed nothing."""


def address(class_: int, name: str, key: bytes = b"") -> bytes:
    return bytes([class_]) + len(name.encode()).to_bytes(2, "big") + name.encode() + key


# ---------------------------------------------------------------- schema


@dataclass(frozen=True, slots=True)
class Schema:
    """Kinds and fields as their JSON declares them."""

    kinds: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_json(cls, text: str) -> Schema:
        return cls(json.loads(text)["kinds"])

    def life(self, kind: str) -> str:
        return str(self.kinds.get(kind, {}).get("life", "delete-wins"))

    def type_of(self, kind: str, name: str) -> str:
        declared = self.kinds.get(kind, {}).get("fields", {}).get(name)
        if declared is None:
            raise EditError(f"kind {kind!r} declares no field {name!r}")
        return str(declared.get("type", "value"))

    def option(self, kind: str, name: str, key: str, default: Any) -> Any:
        return self.kinds.get(kind, {}).get("fields", {}).get(name, {}).get(key, default)

    def group_of(self, kind: str, name: str) -> str | None:
        return next((group for group, members in self._groups(kind).items() if name in members), None)

    def members(self, kind: str, group: str) -> list[str]:
        return list(self._groups(kind).get(group, []))

    def margin_ms(self, kind: str, name: str) -> int | None:
        """The margin of a field of one register; None is infinite."""
        if self.type_of(kind, name) in ("multi", "max", "min", "flag"):
            return None
        margin = self.option(kind, name, "margin_ms", 0)
        return None if margin == "inf" else int(margin)

    def fingerprint(self) -> bytes:
        """Of the declarations. One that differs from the other side's only has the policies compared."""
        text = json.dumps({"kinds": _canonical(self.kinds)}, separators=(",", ":"), ensure_ascii=False)
        return xxhash.xxh3_128_digest(text.encode(), seed=0)

    def policies(self) -> list[list[str | None]]:
        out: list[list[str | None]] = []
        for kind in sorted(self.kinds):
            out.append([kind, None, self.life(kind)])
            out += [[kind, name, self._policy(kind, name)] for name in sorted(self.kinds[kind].get("fields", {}))]
        return out

    def _groups(self, kind: str) -> Mapping[str, list[str]]:
        groups: Mapping[str, list[str]] = self.kinds.get(kind, {}).get("groups", {})
        return groups

    def _policy(self, kind: str, name: str) -> str:
        ranked = ", ranked only" if self.option(kind, name, "authority", False) else ""
        if group := self.group_of(kind, name):
            return f"member of group `{group}`"
        match self.type_of(kind, name):
            case "value":
                margin = self.option(kind, name, "margin_ms", 0)
                unit = "" if margin == "inf" else " ms"
                return f"value, margin {margin}{unit}, {self.option(kind, name, 'resolver', 'newest')}{ranked}"
            case "set":
                return f"set, {self.option(kind, name, 'wins', 'add')} wins{ranked}"
            case other:
                return other + ranked


_KIND_KEYS: Final = ("life", "open", "aliases", "fields", "groups")
_FIELD_KEYS: Final = ("type", "margin_ms", "resolver", "wins", "authority", "on_conflict", "was", "default")


def _canonical(kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Names rising, keys in the page's order; the defaults are thought to be left out already."""
    out: dict[str, Any] = {}
    for name in sorted(kinds):
        kind = {key: kinds[name][key] for key in _KIND_KEYS if key in kinds[name]}
        if fields := kind.get("fields"):
            kind["fields"] = {
                f: {key: fields[f][key] for key in _FIELD_KEYS if key in fields[f]} for f in sorted(fields)
            }
        if groups := kind.get("groups"):
            kind["groups"] = {group: groups[group] for group in sorted(groups)}
        out[name] = kind
    return out


# ---------------------------------------------------------------- the store


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far this store is in another one."""

    incarnation: bytes
    done: int
    at: int


START: Final = Cursor(bytes(8), 0, 0)


@dataclass
class Pending:
    """An edit without a verdict: its registers, and the operations that they come from."""

    edit: Edit
    ops: list[tuple[Entity, list[Op]]]


def _clock_ms() -> int:
    return clock_.time_ns() // 1_000_000


@dataclass
class Store:
    """One replica's data. It outlives its connections, and a cut connection loses nothing."""

    schema: Schema
    clock: Callable[[], int] = _clock_ms
    id: int = field(default_factory=lambda: secrets.randbits(64))
    replicas: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(16)])
    incarnations: list[tuple[int, int]] = field(default_factory=list)
    head: int = 0
    clock_correction_ms: int = 0
    high_water: int = 0
    rank: int = 0
    authority: int | None = None
    authority_head: int = 0
    cursor: Cursor = START
    confirmed: dict[Entity, Registers] = field(default_factory=dict)
    row_seqs: dict[Entity, int] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    edit_count: int = 0
    rejected: list[tuple[Pending, int, str]] = field(default_factory=list)
    conflicts: list[LostWrite] = field(default_factory=list)
    _digest: int = 0
    _count: int = 0

    @property
    def replica(self) -> bytes:
        return self.replicas[-1]

    @property
    def digest(self) -> bytes:
        """That of the confirmed registers."""
        return self._digest.to_bytes(16, "big")

    @property
    def count(self) -> int:
        """Of the confirmed registers."""
        return self._count

    def now_ms(self) -> int:
        return self.clock() + self.clock_correction_ms

    # ------------------------------------------------------------ commits

    def join_confirmed(self, rows: Iterable[tuple[Entity, Registers]]) -> None:
        """Joins rows in one commit."""
        for entity, registers in rows:
            held = self.confirmed.setdefault(entity, {})
            for addr, register in registers.items():
                old = held.get(addr)
                new = register if old is None else join(old, register)
                if new == old:
                    continue
                if old is not None:
                    self._digest -= digest_of(*entity, addr, old)
                else:
                    self._count += 1
                self._digest = (self._digest + digest_of(*entity, addr, new)) % (1 << 128)
                held[addr] = new
                believable = units(self.now_ms() + DRIFT_MS)
                self.high_water = max(
                    [self.high_water, *(t for c in new.candidates if (t := c.stamp.time) <= believable)]
                )
            self.row_seqs[entity] = self._next_seq()

    def _next_seq(self) -> int:
        if not self.incarnations:
            self.incarnations.append((secrets.randbits(64), self.head + 1))
        self.head += 1
        return self.head

    def shown(self, entity: Entity) -> Registers:
        """The confirmed registers and the pending ones over them."""
        registers = dict(self.confirmed.get(entity, {}))
        for pending in self.pending:
            for other, written in pending.edit.entities:
                if other == entity:
                    for addr, register in written.items():
                        registers[addr] = join(registers[addr], register) if addr in registers else register
        return registers

    # ------------------------------------------------------------ edits

    def edit(self, kind: str, id_: str, *ops: Op) -> Pending | None:
        """One edit of one entity; None if it changes nothing."""
        return self._commit([((kind, id_), list(ops))])

    def take_back(self, verdicts: Mapping[int, tuple[int, str]], judged: list[Pending], correct_ms: int | None) -> None:
        """Settles edits that have their verdicts: index to code and message for those not accepted."""
        refused = {id(judged[i]): verdict for i, verdict in verdicts.items() if verdict[0] != 0}
        accepted = [p for i, p in enumerate(judged) if i not in verdicts]
        gone = {id(p) for p in accepted}
        self.join_confirmed(row for pending in accepted for row in pending.edit.entities)
        left = [pending for pending in self.pending if id(pending) not in gone]
        if not verdicts:
            self.pending = left
            return
        if correct_ms is not None:
            self.clock_correction_ms += correct_ms
            self.high_water = max(
                (c.stamp.time for regs in self.confirmed.values() for r in regs.values() for c in r.candidates),
                default=0,
            )
        # What rests on a refused edit was made on a view that is gone: it is made again from its operations.
        self.pending = []
        touched: set[Entity] = set()
        for pending in left:
            verdict = refused.get(id(pending))
            entities = {entity for entity, _ in pending.edit.entities}
            if verdict is not None and correct_ms is None:
                self.rejected.append((pending, *verdict))
                touched |= entities
            elif entities & touched or correct_ms is not None:
                self._commit(pending.ops)
            else:
                self.pending.append(pending)

    def start_over(self) -> None:
        """Goes on as another store: this one turned out to be a copy."""
        self.id, self.cursor, self.authority = secrets.randbits(64), START, None
        self.replicas = [secrets.token_bytes(16)]
        pending, self.pending = self.pending, []
        for one in pending:
            self._commit(one.ops)

    def _commit(self, ops: list[tuple[Entity, list[Op]]]) -> Pending | None:
        changes = [(entity, self._changes(entity, entity_ops)) for entity, entity_ops in ops]
        if not any(changed for _, changed in changes):
            return None
        shown = {entity: self.shown(entity) for entity, _ in changes}
        touched = [shown[entity].get(addr) for entity, changed in changes for addr, _, _ in changed]
        header = self._header([register for register in touched if register is not None])
        rows = []
        for entity, changed in changes:
            old = shown[entity]
            rows.append(
                (entity, {addr: write(old.get(addr), header, margin, value) for addr, margin, value in changed})
            )
        self.edit_count += 1
        self._next_seq()
        pending = Pending(Edit(self.edit_count, rows), ops)
        self.pending.append(pending)
        return pending

    def _header(self, touched: list[Register]) -> Header:
        self.high_water = max(units(self.now_ms()), self.high_water + 1)
        newest = max((register.newest.stamp for register in touched), default=None)
        generation = 0
        if newest is not None:
            generation = newest.generation + (newest.time >= self.high_water)
        saw = Saw(self.cursor.incarnation, self.cursor.done) if self.cursor != START else None
        return Header(Stamp(generation, self.high_water, self.replica), self.rank, saw)

    def _changes(self, entity: Entity, ops: list[Op]) -> list[tuple[bytes, int | None, bytes]]:
        """Address, margin and value of each register that the operations write."""
        kind = entity[0]
        registers = self.shown(entity)
        alive = self.is_alive(entity)
        view = self._fields(kind, registers)
        revives = self.schema.life(kind) == "edit-revives"
        life_margin = 0 if self.schema.life(kind) == "newest" else None
        out: dict[bytes, tuple[int | None, bytes]] = {}

        def put(addr: bytes, margin: int | None, value: Any) -> None:
            out[addr] = (margin, cbor.encode(value))

        for op in ops:
            match op:
                case ("delete",):
                    if alive:
                        put(LIFE, life_margin, False)
                case ("revive",):
                    if not alive:
                        put(LIFE, life_margin, True)
                case ("set", name, value):
                    self._set(kind, name, value, registers, view, put)
                case ("add", name, key):
                    put(address(3, name, key.encode()), None, True)
                case ("remove", name, key):
                    put(address(3, name, key.encode()), None, False)
                case ("set_key", name, key, value):
                    put(address(3, name, key.encode()), 0, value)
                case ("remove_key", name, key):
                    put(address(3, name, key.encode()), 0, ABSENT)
                case ("inc", name, by):
                    share = address(4, name, self.replica)
                    # Two increments of one edit add up; the share holds the replica's running total.
                    held = _total(registers[share]) if share in registers else 0
                    put(share, 0, (cbor.decode(out[share][1]) if share in out else held) + by)
                case _:
                    raise EditError(f"no operation {op!r}")
        if out and LIFE not in out:
            if LIFE in registers and not alive and not revives:
                raise EditError(f"{entity} is deleted")
            if not alive or revives:
                put(LIFE, life_margin, True)
        return [(addr, *out[addr]) for addr in sorted(out)]

    def _set(
        self,
        kind: str,
        name: str,
        value: Any,
        registers: Registers,
        view: Mapping[str, Any],
        put: Callable[[bytes, int | None, Any], None],
    ) -> None:
        group = self.schema.group_of(kind, name)
        shows = cbor.encode(view[name]) if name in view else None
        if shows == cbor.encode(value):
            return
        if group is None:
            put(address(1, name), self.schema.margin_ms(kind, name), value)
            return
        held = registers.get(address(2, group))
        members = {member: None for member in self.schema.members(kind, group)}
        members |= cbor.decode(held.newest.value) if held else {}
        members[name] = value
        put(address(2, group), 0, members)

    # ------------------------------------------------------------ views

    def is_alive(self, entity: Entity) -> bool:
        life = self.shown(entity).get(LIFE)
        if life is None:
            return False
        lives = [candidate.value != b"\xf4" for candidate in life.candidates]
        match self.schema.life(entity[0]):
            case "edit-revives":
                return any(lives)
            case "newest":
                return lives[-1]
            case _:
                return all(lives)

    def view(self, kind: str, id_: str) -> dict[str, Any] | None:
        """The fields that show, or None if the entity is not there or deleted."""
        return self._fields(kind, self.shown((kind, id_))) if self.is_alive((kind, id_)) else None

    def _fields(self, kind: str, registers: Registers) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for addr in sorted(registers):
            prefix, key = split_address(addr)
            class_, name, register = addr[0], prefix[3:].decode(), registers[addr]
            if class_ == 1:
                if (value := self._resolve(kind, name, register.candidates)) is not ABSENT:
                    out[name] = value
            elif class_ == 2:
                value = cbor.decode(register.newest.value)
                members = value if isinstance(value, dict) else {}
                out |= {member: members[member] for member in self.schema.members(kind, name) if member in members}
            elif class_ == 3 and self.schema.type_of(kind, name) == "set":
                adds = [candidate.value == b"\xf5" for candidate in register.candidates]
                wins = self.schema.option(kind, name, "wins", "add")
                if any(adds) if wins == "add" else all(adds):
                    out.setdefault(name, []).append(key.decode())
            elif class_ == 3 and register.newest.value != b"\xf7":
                out.setdefault(name, {})[key.decode()] = cbor.decode(register.newest.value)
            elif class_ == 4:
                out[name] = out.get(name, 0) + _total(register)
        return out

    def _resolve(self, kind: str, name: str, candidates: tuple[Candidate, ...]) -> Any:
        values = [cbor.decode(candidate.value) for candidate in candidates]
        type_ = self.schema.type_of(kind, name)
        if type_ == "multi":
            return values
        if type_ == "flag":
            return True if any(value is True for value in values) else values[-1]
        resolver = type_ if type_ in ("max", "min") else self.schema.option(kind, name, "resolver", "newest")
        by_value = [(cbor.order_key(value), index) for index, value in enumerate(values)]
        match resolver:
            case "oldest":
                return values[0]
            case "rank":
                return values[max(range(len(values)), key=lambda index: (candidates[index].header.rank, index))]
            case "max":
                return values[max(by_value)[1]]
            case "min":
                least = min(by_value)[0]
                return values[max(index for key, index in by_value if key == least)]
            case _:
                return values[-1]


def _total(register: Register) -> int:
    """A replica's running total: any value but an integer counts 0."""
    value = cbor.decode(register.newest.value)
    return value if type(value) is int else 0


def restamped(pending: Pending, change: Callable[[Header], Header]) -> Pending:
    """The same edit under another header, as a dishonest client makes one."""
    rows = []
    for entity, registers in pending.edit.entities:
        written: Registers = {}
        for addr, register in registers.items():
            candidate = register.newest
            header = change(candidate.header)
            floor = header.stamp if register.floor == candidate.stamp else register.floor
            written[addr] = replace(register, floor=floor, candidates=(replace(candidate, header=header),))
        rows.append((entity, written))
    return Pending(replace(pending.edit, entities=rows), pending.ops)

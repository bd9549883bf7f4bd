"""The client against the `rivus` binary: pushes, pulls, merges, verdicts, cuts, and digests that agree."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import SCHEMA, Hub
from rivus_client.session import Counts, Gone, Session, sync
from rivus_client.store import LIFE, Schema, Store, restamped
from rivus_client.wire import Code, Type

HOUR_MS = 3_600_000


def agree(hub: Hub, store: Store) -> None:
    """What the hub says of itself is what the store found."""
    status = hub.run("hub", "status")
    assert (status["digest"], status["registers"]) == (store.digest.hex(), store.count)


def fresh() -> Store:
    return Store(Schema(SCHEMA["kinds"]))


def pulled(hub: Hub) -> Store:
    """A new store with everything the hub has, verified."""
    store = fresh()
    counts = sync(store, hub.url)
    assert counts.compared == 1 and store.cursor.done > 0
    agree(hub, store)
    return store


def fill(hub: Hub, device: str, count: int) -> None:
    """Many entities of long texts, so that they make several pages."""
    draw = random.Random(count)
    words = [{"kind": "note", "id": f"n{n}", "text": draw.randbytes(300).hex()} for n in range(count)]
    file = hub.folder / f"{device}.jsonl"
    file.write_text("\n".join(json.dumps({"id": w["id"], "text": w["text"]}) for w in words))
    hub.run(device, "import", "--kind", "note", str(file))


def test_everything_is_pulled_and_the_digest_verified(hub: Hub) -> None:
    hub.run("phone", "put", "task", "t1", "title=x", "owner=ann", "--add", "tags=red", "--inc", "views=2", "start=5",
            "who=a", "best=3", "least=-1.5", "done=true", "--set-key", "labels.k=[1,null]")  # fmt: skip
    hub.run("phone", "put", "note", "n1", "text=gone")
    hub.run("phone", "delete", "note", "n1")
    hub.sync("phone")
    store = pulled(hub)
    assert store.view("task", "t1") == {
        "title": "x", "owner": "ann", "tags": ["red"], "views": 2, "start": 5, "stop": None, "who": ["a"],
        "best": 3, "least": -1.5, "done": True, "labels": {"k": [1, None]},
    }  # fmt: skip
    assert store.view("note", "n1") is None
    assert sync(store, hub.url).equal, "the second time there is nothing to say"


def test_pages_are_many_and_compressed(hub: Hub) -> None:
    fill(hub, "phone", 1500)
    hub.sync("phone")
    store = fresh()
    counts = sync(store, hub.url)
    assert counts.pages >= 3 and counts.compressed >= 3 and counts.registers == store.count == 3000
    agree(hub, store)


def test_more_than_a_window_is_pulled_and_given_back(hub: Hub) -> None:
    fill(hub, "phone", 3000)
    hub.sync("phone")
    store = fresh()
    counts = sync(store, hub.url)
    assert counts.windows >= 6, "1.8 MB are almost two windows of 1 MiB, told by quarters"
    agree(hub, store)


def test_edits_of_every_field_type_reach_the_hub(hub: Hub, store: Store) -> None:
    hub.run("phone", "put", "task", "t1", "title=x", "owner=ann", "--add", "tags=red", "--inc", "views=2", "start=5",
            "who=a", "best=3", "least=2", "done=true", "--set-key", "labels.k=1")  # fmt: skip
    hub.sync("phone")
    sync(store, hub.url)
    store.edit(
        "task", "t1", ("set", "title", "y"), ("set", "owner", "bob"), ("add", "tags", "blue"), ("remove", "tags", "red"),
        ("inc", "views", 3), ("inc", "views", -1), ("set", "stop", 9), ("set", "who", "b"), ("set", "best", 2),
        ("set", "least", {"deep": [1.5, None, True]}), ("set", "done", False), ("set_key", "labels", "z", None),
        ("remove_key", "labels", "k"),
    )  # fmt: skip
    store.edit("note", "n1", ("set", "text", "hidden"))
    store.edit("note", "n1", ("delete",))
    store.edit("word", "w1", ("set", "text", "first"))
    store.edit("word", "w1", ("delete",))
    store.edit("word", "w1", ("revive",), ("set", "text", "second"))
    counts = sync(store, hub.url)
    assert (counts.accepted, counts.verdicts, counts.equal, store.pending) == (6, [], True, [])
    agree(hub, store)
    assert hub.show("hub", "task", "t1") == store.view("task", "t1") == {
        "title": "y", "owner": "bob", "tags": ["blue"], "views": 4, "start": 5, "stop": 9, "who": ["b"],
        "best": 2, "least": {"deep": [1.5, None, True]}, "done": False, "labels": {"z": None},
    }  # fmt: skip
    assert hub.run("hub", "show", "note", "n1")["deleted"] and store.view("note", "n1") is None
    assert hub.show("hub", "word", "w1") == store.view("word", "w1") == {"text": "second"}
    assert hub.sync("phone")["verified"], "the device in Rust finds the same digest"


def test_concurrent_edits_merge_to_one_view(hub: Hub, store: Store) -> None:
    hub.run("phone", "put", "task", "t1", "title=x", "owner=ann", "--add", "tags=red", "who=a", "best=1", "start=1")
    hub.sync("phone")
    sync(store, hub.url)
    store.edit("task", "t1", ("set", "title", "py"), ("set", "owner", "py"), ("remove", "tags", "red"), ("set", "best", 9),
               ("set", "who", "py"), ("inc", "views", 10), ("set", "stop", 3), ("delete",))  # fmt: skip
    hub.run(
        "phone",
        "put",
        "task",
        "t1",
        "title=rs",
        "owner=rs",
        "--add",
        "tags=red",
        "best=4",
        "who=rs",
        "--inc",
        "views=5",
    )
    hub.sync("phone")
    assert sync(store, hub.url).compared == 1
    assert hub.sync("phone")["verified"]
    agree(hub, store)
    shows = store.view("task", "t1")
    assert shows is not None and shows == hub.show("hub", "task", "t1") == hub.show("phone", "task", "t1")
    assert (shows["title"], shows["owner"], shows["best"], shows["views"]) == ("rs", "rs", 9, 15)
    assert (shows["tags"], shows["who"], shows["stop"]) == (["red"], ["py", "rs"], 3)
    assert len(pulled(hub).shown(("task", "t1"))) == len(store.shown(("task", "t1")))


def test_rank_wins_within_the_margin(tmp_path: Path) -> None:
    hub = Hub(tmp_path, "--grant", "high=5", "--grant", "low=0")
    try:
        ranked, plain = fresh(), fresh()
        with Session(ranked, hub.url, token="high") as session:
            assert session.rank == 5
            ranked.edit("task", "t", ("set", "owner", "high"))
            session.catch_up()
        plain.edit("task", "t", ("set", "owner", "low"))
        sync(plain, hub.url, token="low")
        assert plain.view("task", "t") == hub.show("hub", "task", "t") == {"owner": "high"}
        agree(hub, plain)
        with pytest.raises(Gone) as refused:
            Session(fresh(), hub.url, token="none")
        assert refused.value.code == Code.UNAUTHORISED
    finally:
        hub.stop()


def forge(store: Store, index: int, change: Callable[[Any], Any]) -> None:
    store.pending[index] = restamped(store.pending[index], change)


def test_an_edit_under_a_foreign_stamp_is_taken_back(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "kept"))
    sync(store, hub.url)
    store.edit("task", "t1", ("set", "title", "forged"))
    forge(store, 0, lambda h: replace(h, stamp=replace(h.stamp, replica=b"\x77" * 16)))
    store.edit("task", "t1", ("add", "tags", "rests on it"))
    store.edit("note", "n", ("set", "text", "beside it"))
    counts = sync(store, hub.url)
    assert counts.verdicts == [Code.FOREIGN_STAMP, 0], "the refused one, and the one that touches the same entity"
    assert [(code, p.ops[0][1]) for p, code, _ in store.rejected] == [
        (Code.FOREIGN_STAMP, [("set", "title", "forged")])
    ] and store.pending == []
    assert store.view("task", "t1") == hub.show("hub", "task", "t1") == {"title": "kept", "tags": ["rests on it"]}
    assert hub.show("hub", "note", "n") == {"text": "beside it"}
    agree(hub, store)


def test_a_rank_that_was_not_granted_is_refused(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "loud"))
    forge(store, 0, lambda h: replace(h, rank=9))
    assert sync(store, hub.url).verdicts == [Code.RANK]
    assert store.view("task", "t1") is None and hub.run("hub", "status")["registers"] == 0


def test_a_lie_about_what_was_seen_is_refused(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "who", "liar"))
    entity, registers = store.pending[0].edit.entities[0]
    lie = {b"\x55" * 16: (0, 1 << 40)}
    rows = [(entity, {addr: replace(r, seen=lie) if b"who" in addr else r for addr, r in registers.items()})]
    store.pending[0].edit = replace(store.pending[0].edit, entities=rows)
    assert sync(store, hub.url).verdicts == [Code.SEEN]
    assert store.view("task", "t1") is None


def test_values_of_another_type_show_as_the_page_says(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "x"), ("inc", "views", 4), ("add", "tags", "a"), ("set", "best", 1))
    entity, registers = store.pending[0].edit.entities[0]
    odd = {0: b"\xf6", 1: b"\xf7", 3: b"\x80", 4: b"\x61x"}
    rows = {}
    for addr, register in registers.items():
        value = register.newest.value if b"best" in addr else odd[addr[0]]
        rows[addr] = replace(register, candidates=(replace(register.newest, value=value),))
    store.pending[0].edit = replace(store.pending[0].edit, entities=[(entity, rows)])
    assert sync(store, hub.url).accepted == 1
    assert store.view("task", "t1") == hub.show("hub", "task", "t1") == {"best": 1, "views": 0}
    agree(hub, store)


def test_of_two_writes_of_one_stamp_the_greater_bytes_stay_everywhere(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", 1))
    copy = fresh()
    copy.replicas = list(store.replicas)
    copy.edit("task", "t1", ("set", "title", -1))
    stamp = store.pending[0].edit.entities[0][1][LIFE].newest.stamp
    forge(copy, 0, lambda h: replace(h, stamp=stamp))
    sync(store, hub.url)
    sync(copy, hub.url)
    sync(store, hub.url)
    assert store.view("task", "t1") == copy.view("task", "t1") == hub.show("hub", "task", "t1") == {"title": -1}
    agree(hub, store)
    agree(hub, copy)


def test_a_clock_that_is_ahead_is_corrected_and_the_edits_stamped_anew(hub: Hub) -> None:
    ahead = fresh()
    true_clock = ahead.clock
    ahead.clock = lambda: true_clock() + HOUR_MS
    ahead.edit("task", "t1", ("set", "title", "early"))
    ahead.edit("task", "t1", ("inc", "views", 2))
    counts = sync(ahead, hub.url)
    assert counts.verdicts[0] == Code.CLOCK_SKEW and counts.accepted == 2 and ahead.rejected == []
    assert abs(ahead.clock_correction_ms + HOUR_MS) < 10_000
    assert hub.show("hub", "task", "t1") == ahead.view("task", "t1") == {"title": "early", "views": 2}
    agree(hub, ahead)


class Cut(Exception):
    """The network went away."""


def cutter(frames: int, frame_types: set[Type]) -> Callable[[int, bytes], None]:
    left = frames

    def on_frame(kind: int, body: bytes) -> None:
        nonlocal left
        if kind in frame_types:
            left -= 1
            if left < 0:
                raise Cut

    return on_frame


def sync_until_cut(store: Store, hub: Hub, on_frame: Callable[[int, bytes], None]) -> tuple[bool, Counts | None]:
    session = Session(store, hub.url, on_frame=on_frame)
    try:
        return False, session.catch_up()
    except Cut:
        session.cut()
        return True, session.counts
    finally:
        if not session.is_cut:
            session.close()


def test_a_reader_that_is_cut_at_random_frames_goes_on_from_its_cursor(hub: Hub, store: Store) -> None:
    fill(hub, "phone", 2500)
    hub.sync("phone")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    registers, cuts = 0, 0
    while True:
        was_cut, counts = sync_until_cut(store, hub, cutter(draw.randrange(1, 3), {Type.DELTA, Type.CHECKPOINT}))
        assert counts is not None
        registers += counts.registers
        if not was_cut:
            break
        cuts += 1
        assert store.cursor.at > 0, "what came before the cut is kept"
    assert cuts >= 2 and registers == store.count == 5000, "and nothing comes twice"
    agree(hub, store)


def test_edits_whose_answer_was_cut_off_count_once(hub: Hub, store: Store) -> None:
    for n in range(20):
        store.edit("task", f"t{n % 3}", ("inc", "views", 1))
    was_cut, _ = sync_until_cut(store, hub, cutter(0, {Type.ACK}))
    assert was_cut and len(store.pending) == 20
    store.edit("task", "t0", ("inc", "views", 100))
    assert sync(store, hub.url).accepted == 21
    assert sum(hub.show("hub", "task", f"t{n}")["views"] for n in range(3)) == 120
    agree(hub, store)


def test_a_lost_write_is_told_once(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "mine"))
    sync(store, hub.url)
    hub.sync("phone")
    store.edit("task", "t1", ("set", "title", "unseen"))
    hub.run("phone", "put", "task", "t1", "title=later")
    sync(store, hub.url)
    hub.sync("phone")
    sync(store, hub.url)
    lost = [(w.kind, w.id, w.address[3:], w.value, w.winner, w.hidden, w.stamp.replica) for w in store.conflicts]
    assert lost == [("task", "t1", b"title", b"\x66unseen", b"\x65later", False, store.replica)]
    told: list[int] = []
    with Session(store, hub.url, on_frame=lambda kind, body: told.append(kind)) as session:
        session.catch_up()
    assert Type.LOST not in told and len(store.conflicts) == 1, "what was heard is forgotten by the hub"
    assert store.view("task", "t1") == {"title": "later"}


def test_a_lost_write_that_was_not_heard_is_told_again(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "mine"))
    hub.run("phone", "put", "task", "t1", "title=later")
    sync(store, hub.url)
    hub.sync("phone")
    told: list[int] = []
    with Session(store, hub.url, on_frame=lambda kind, body: told.append(kind)) as session:
        send = session.send
        session.send = lambda frame: None if frame[0] == Type.HEARD else send(frame)  # type: ignore[method-assign]
        session.catch_up()
    with Session(store, hub.url, on_frame=lambda kind, body: told.append(kind)) as session:
        session.catch_up()
    assert told.count(Type.LOST) == 2 and len(store.conflicts) == 1


def test_a_live_reader_hears_of_a_change(hub: Hub, store: Store) -> None:
    with Session(store, hub.url, live=True) as session:
        session.catch_up()
        hub.run("phone", "put", "task", "t1", "title=live")
        hub.sync("phone")
        session.wait_for(lambda: store.view("task", "t1") == {"title": "live"})
        compared = session.counts.compared
        session.wait_for(lambda: session.counts.compared > compared)
        store.edit("task", "t1", ("set", "title", "answer"))
        session.push()
        assert hub.show("hub", "task", "t1") == {"title": "answer"}
    agree(hub, store)


def test_entities_are_fetched_whole(hub: Hub, store: Store) -> None:
    fill(hub, "phone", 900)
    hub.sync("phone")
    with Session(store, hub.url) as session:
        session.catch_up()
        asked = [("note", f"n{n}") for n in range(900)] + [("note", "nobody")]
        assert session.fetch(asked) == store.confirmed


def test_a_hub_that_is_set_back_gets_everything_from_the_client(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "before"))
    sync(store, hub.url)
    backup = str(hub.folder / "backup")
    hub.run("hub", "backup", backup)
    store.edit("task", "t1", ("set", "title", "after"), ("inc", "views", 4))
    store.edit("task", "t2", ("set", "owner", "new"))
    sync(store, hub.url)
    hub.stop()
    for file in hub.folder.glob("hub.db*"):
        file.unlink()
    hub.run("hub", "restore", backup)
    hub.start()
    assert hub.show("hub", "task", "t1") == {"title": "before"}
    store.edit("task", "t1", ("inc", "views", 1))
    sync(store, hub.url)
    assert hub.show("hub", "task", "t1") == store.view("task", "t1") == {"title": "after", "views": 5}
    assert hub.show("hub", "task", "t2") == {"owner": "new"}
    agree(hub, store)
    pulled(hub)


def test_a_schema_that_differs_is_named(hub: Hub) -> None:
    other = Store(Schema({"task": {"life": "edit-revives", "fields": {"title": {"type": "multi"}}}}))
    with pytest.raises(Gone, match="title") as refused:
        sync(other, hub.url)
    assert refused.value.code == Code.SCHEMA


def test_a_schema_that_knows_less_syncs_what_it_does_not_know(hub: Hub, store: Store) -> None:
    store.edit("task", "t1", ("set", "title", "x"), ("set", "owner", "ann"))
    sync(store, hub.url)
    small = Store(Schema({"task": {"life": "edit-revives", "fields": {"title": {}}}}))
    assert sync(small, hub.url).compared == 1
    agree(hub, small)

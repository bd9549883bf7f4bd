"""A hub of its own for each test: the `rivus` binary, serving an SQLite file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rivus_client.store import Schema, Store

ROOT = Path(__file__).resolve().parents[2]

SCHEMA: dict[str, Any] = {
    "kinds": {
        "note": {"fields": {"text": {}}},
        "task": {
            "life": "edit-revives",
            "fields": {
                "best": {"type": "max"},
                "done": {"type": "flag"},
                "labels": {"type": "map"},
                "least": {"type": "min"},
                "owner": {"margin_ms": 5000, "resolver": "rank"},
                "start": {},
                "stop": {},
                "tags": {"type": "set"},
                "title": {},
                "views": {"type": "counter"},
                "who": {"type": "multi"},
            },
            "groups": {"interval": ["start", "stop"]},
        },
        "word": {"life": "newest", "fields": {"text": {"margin_ms": "inf", "resolver": "oldest"}}},
    }
}


def binary() -> Path:
    """The `rivus` that `cargo build` made, unless RIVUS_BIN names one."""
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "rivus"
    path = Path(os.environ.get("RIVUS_BIN", built))
    assert path.is_file(), f"{path} is not there: run `cargo build`, or name a binary in RIVUS_BIN"
    return path


class Hub:
    """A folder with a hub's file and those of devices, and the process that serves."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options or ("--open",)
        (folder / "schema.json").write_text(json.dumps(SCHEMA))
        self.start()

    def start(self) -> None:
        line = self._command("hub", "serve", "--listen", "127.0.0.1:0", *self.options)
        with open(self.folder / "hub.log", "a") as log:
            self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first, "the hub did not start: " + (self.folder / "hub.log").read_text()
        self.url: str = json.loads(first)["url"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def run(self, device: str, *args: str) -> Any:
        """A command of the command line on a device's file ("hub" for the hub's own)."""
        done = subprocess.run(self._command(device, *args), check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def sync(self, device: str) -> Any:
        return self.run(device, "sync", self.url)

    def show(self, device: str, kind: str, id_: str) -> Any:
        return self.run(device, "show", kind, id_)["fields"]

    def _command(self, device: str, *args: str) -> list[str]:
        db, schema = self.folder / f"{device}.db", self.folder / "schema.json"
        return [str(binary()), "--db", str(db), "--schema", str(schema), "--json", *args]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def store() -> Store:
    return Store(Schema(SCHEMA["kinds"]))

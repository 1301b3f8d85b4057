"""A whole run leaves nothing readable where there is a vault, in any file that it ever wrote."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.device.vault.full_run import Run, full_run
from tests.device.vault.showing import Known, found_in
from tests.device.vault.written import LIST

from onhand.core.sealing import is_sealed_file

Shown = dict[str, list[str]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="passes an open file to a process"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, tuple[Run, Shown]]:
    """Two runs at the same time: one with a vault, and one without."""

    def ran(has_vault: bool) -> tuple[Run, Shown]:
        found: Shown = {}

        def looked(run: Run) -> None:
            for name, places in found_in(run.known, *run.written).items():
                found.setdefault(name, []).extend(places)

        place = tmp_path_factory.mktemp("sealed" if has_vault else "plain")
        return full_run(place, has_vault=has_vault, looked=looked), found

    with ThreadPoolExecutor(2) as both:
        return dict(zip((True, False), both.map(ran, (True, False)), strict=True))


def test_attack_whoever_reads_the_disk_of_a_full_run_finds_nothing(
    runs: Mapping[bool, tuple[Run, Shown]],
) -> None:
    """Nothing asked, answered, taught or secret, while it runs, when it was killed, at the end.

    The process that learns is handed the key: it cannot read the passphrase.
    """
    run, shown = runs[True]

    assert shown == {}
    assert run.outcomes["doubted"] == 202
    assert run.outcomes["verdict"] in {"accepted", "refused"}
    assert len(run.known) > 20
    assert len(str(run.known["an answer"])) > 8


def test_without_a_vault_the_same_reader_finds_it(
    runs: Mapping[bool, tuple[Run, Shown]],
) -> None:
    """The same run and the same looks: what a cloud is asked with alone is never written."""
    run, shown = runs[False]

    assert set(run.known) - set(shown) == {"a cloud's key"}


def test_every_file_of_a_run_lies_in_the_folders_that_were_read(
    runs: Mapping[bool, tuple[Run, Shown]],
) -> None:
    """No process of it wrote anywhere else, and all that a vault covers was written."""
    run, _ = runs[True]
    written = set((run.place / "attic" / LIST).read_text().splitlines())

    outside = [
        one
        for one in written
        if not any(Path(one).is_relative_to(folder) for folder in run.written)
    ]
    assert [one for one in outside if not one.startswith("/dev/")] == []
    names = {path.name for path in run.home.rglob("*") if path.is_file()}
    assert {"sealed.sqlite", "sealed-answers.sqlite", "feedback.journal"} <= names
    assert {"quarantine.sqlite", "new.jsonl", "classes.json", "keys.json"} <= names
    assert all(is_sealed_file(path) for path in (run.home / "keys").iterdir())


def test_what_is_looked_for_is_seen_in_each_form(tmp_path: Path) -> None:
    """Whatever a file does with it short of encryption or compression."""
    numbers = np.arange(5, dtype=np.float32) / 7
    (tmp_path / "a").write_bytes(b"x" + numbers.astype("<f2").tobytes())
    (tmp_path / "b").write_text('{"said": "J\\u00fcrgen waits"}')
    (tmp_path / "c").write_text("YWFhIEp1bGllIHdhaXRzIGZvciBub2JvZHkh")

    known: dict[str, Known] = {
        "numbers": numbers,
        "text": "Jürgen waits",
        "other": "Julie waits for nobody",
    }

    assert set(found_in(known, tmp_path)) == set(known)

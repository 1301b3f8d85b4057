"""With a vault, nothing that was asked, answered or remembered is in any file in the clear."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.core.sealing import is_sealed_file
from onhand.device.access.store import KeyStore
from onhand.device.serving.asks import Ending, Piece
from onhand.device.serving.assembling import opened_outbox
from onhand.device.serving.caches.block_figures import open_blocks
from onhand.device.serving.caches.exact import ExactCache, Kept
from onhand.device.serving.caches.questions import Question
from onhand.device.serving.caches.semantic_store import SemanticStore
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.plain_stores import seal_stores
from onhand.device.serving.routing.outbox import Outbox
from onhand.device.serving.routing.settings import OutboxSettings
from onhand.device.serving.routing.waiting import Waiting
from onhand.device.serving.secret import server_secret
from onhand.device.serving.settings import CacheSettings
from onhand.device.serving.unsealed import remove_plain_caches, seal_outbox, waiting_secret
from onhand.device.trust.store import TrustStore
from onhand.device.vault.cells import FileSealer, SealedCells
from onhand.device.vault.handing import vault_sentence
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import (
    Vault,
    init_vault,
    open_vault,
    rotate_store,
)

ASKED = "what does the aardvark in room seven earn"
ANSWERED = "the aardvark earns nine thousand"
KEPT = Kept(
    (Piece(ANSWERED),), Ending(reason="stop", prompt_tokens=3, cached_tokens=0, generated_tokens=4)
)
KEY = b"k" * 32


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A vault beside the stores."""
    init_vault(tmp_path, kind="key-file", place=str(tmp_path / "key"), asking=Asking({}))
    opened = open_vault(tmp_path)
    assert opened is not None
    return opened


def cells(vault: Vault, store: str) -> SealedCells:
    """As a server makes them."""
    return SealedCells(vault.keys(store), naming=vault.first_key(store))


def contents(folder: Path) -> Iterator[bytes]:
    """All files below a folder, what SQLite keeps beside its own included."""
    return (path.read_bytes() for path in folder.rglob("*") if path.is_file())


def assert_nothing_shows(folder: Path) -> None:
    """None of the words is in any file, and the log of SQLite was looked at too."""
    whole = b"".join(contents(folder))
    assert len(whole) > 500
    assert b"aardvark" not in whole


def test_exact_answers_are_sealed_and_found_again(tmp_path: Path, vault: Vault) -> None:
    """Open or closed, no file shows an answer; after a rotation it is found all the same."""
    path = tmp_path / "cache" / "a.sqlite"
    with ExactCache(path, most_bytes=2**20, cells=cells(vault, "responses")) as cache:
        cache.keep(KEY, KEPT)
        assert_nothing_shows(path.parent)
    assert_nothing_shows(path.parent)
    assert KEY not in path.read_bytes()
    rotate_store(tmp_path, ["responses"], asking=Asking({}))
    later = open_vault(tmp_path)
    assert later is not None

    with ExactCache(path, most_bytes=2**20, cells=cells(later, "responses")) as cache:
        assert cache.find(KEY) == KEPT


def test_without_the_vault_the_same_answer_shows(tmp_path: Path) -> None:
    """The check above sees what is not sealed."""
    path = tmp_path / "cache" / "a.sqlite"
    with ExactCache(path, most_bytes=2**20) as cache:
        cache.keep(KEY, KEPT)

    assert any(b"aardvark" in content for content in contents(path.parent))


def test_similar_questions_are_sealed_and_found_again(tmp_path: Path, vault: Vault) -> None:
    """Question, vector and answer: none shows, and all are there the next time."""
    path = tmp_path / "cache" / "q.sqlite"
    vector = np.full(16, 0.25, np.float32)
    question = Question(around=b"a" * 32, text=ASKED)
    for is_first in (True, False):
        with SemanticStore(
            path, encoder="e", most_bytes=2**20, cells=cells(vault, "responses")
        ) as store:
            if is_first:
                store.keep(question, vector, KEPT)
            found = store.find(question, vector)
            assert found is not None
            assert found.kept == KEPT
            assert_nothing_shows(path.parent)
            whole = b"".join(contents(path.parent))
            assert vector.astype(np.float16).tobytes() not in whole


def test_the_outbox_is_sealed_and_goes_on(tmp_path: Path, vault: Vault) -> None:
    """A request and its answer, before and after another start; the same request is one."""
    path = tmp_path / "outbox" / "r.sqlite"

    def opened() -> Outbox:
        return Outbox(path, most_bytes=2**20, most_waiting=9, cells=cells(vault, "outbox"))

    outbox = opened()
    made, _ = outbox.put(ASKED.encode(), tenant="t", lane="l", key="i", now_s=1, keep_s=99)
    assert_nothing_shows(path.parent)
    outbox.close()
    outbox = opened()
    due = outbox.next(2)
    assert due is not None
    assert due.body == ASKED.encode()
    assert outbox.known(ASKED.encode(), tenant="t", key="i") == made
    outbox.end(made.id, status=200, answer=ANSWERED.encode(), now_s=3)
    assert_nothing_shows(path.parent)

    found = outbox.find(made.id, tenant="t")
    outbox.close()

    assert found is not None
    assert found.answer == ANSWERED.encode()


def test_attack_an_answer_moved_to_another_question_is_not_given(
    tmp_path: Path, vault: Vault
) -> None:
    """Whoever may write to the database cannot have one question answered by another's."""
    path = tmp_path / "a.sqlite"
    with ExactCache(path, most_bytes=2**20, cells=cells(vault, "responses")) as cache:
        cache.keep(KEY, KEPT)
        cache.keep(b"j" * 32, Kept((Piece("no"),), KEPT.ending))
    rows = sqlite3.connect(path)
    rows.execute("UPDATE answers SET answer = (SELECT answer FROM answers ORDER BY size LIMIT 1)")
    rows.commit()
    rows.close()

    with ExactCache(path, most_bytes=2**20, cells=cells(vault, "responses")) as cache:
        assert cache.find(KEY) is None


def test_blocks_are_sealed_to_their_place(vault: Vault) -> None:
    """A block of keys and values shows nothing, and opens under its own key alone."""
    sealer = FileSealer(vault.keys("prefix"))
    sealed = sealer.seal(ASKED.encode(), place=b"one")

    assert b"aardvark" not in sealed
    assert sealer.unseal(sealed, place=b"one") == ASKED.encode()
    with pytest.raises(InputError, match="does not open"):
        sealer.unseal(sealed, place=b"two")


def test_plain_caches_go_and_plain_requests_are_sealed(tmp_path: Path, vault: Vault) -> None:
    """Nothing of the time before the vault stays readable, and no promised answer is lost."""
    for folder in ("cache/blocks", "outbox"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cache" / "blocks" / "a.block").write_text(ASKED)
    with ExactCache(tmp_path / "cache" / "answers.sqlite", most_bytes=2**20) as cache:
        cache.keep(KEY, KEPT)
    plain, path = tmp_path / "outbox" / "requests.sqlite", tmp_path / "outbox" / "sealed.sqlite"
    outbox = Outbox(plain, most_bytes=2**20, most_waiting=9)
    made, _ = outbox.put(ASKED.encode(), tenant="t", lane="l", key="i", now_s=1, keep_s=99)
    outbox.close()
    sealing = cells(vault, "outbox")
    Outbox(path, most_bytes=2**20, most_waiting=9, cells=sealing).close()

    remove_plain_caches(tmp_path)
    assert seal_outbox(plain, path, sealing) == 1
    assert seal_outbox(plain, path, sealing) == 0

    assert not plain.exists()
    assert all(b"aardvark" not in content for content in contents(tmp_path))
    outbox = Outbox(path, most_bytes=2**20, most_waiting=9, cells=sealing)
    assert outbox.known(ASKED.encode(), tenant="t", key="i") == made
    assert outbox.next(2) == made
    outbox.close()


@pytest.mark.usefixtures("vault")
def test_a_server_seals_what_it_opens_where_there_is_a_vault(tmp_path: Path) -> None:
    """Blocks and outbox of a server's settings; the server's secret is not in a file, either."""
    blocks = open_blocks(CacheSettings(), tmp_path)
    assert blocks is not None
    blocks.close()
    outbox = opened_outbox(OutboxSettings(), home=tmp_path, metrics=Metrics())
    outbox.put(ASKED.encode(), tenant="t", lane="l", key="i", now_s=1, keep_s=99)
    outbox.close()

    assert_nothing_shows(tmp_path / "outbox")
    assert (tmp_path / "cache" / "sealed-blocks").is_dir()
    assert not (tmp_path / "keys").exists()


def test_without_the_vault_an_answer_moved_to_another_question_is_given(tmp_path: Path) -> None:
    """So that it is the seal that binds an answer to its question."""
    path, other = tmp_path / "a.sqlite", Kept((Piece("no"),), KEPT.ending)
    with ExactCache(path, most_bytes=2**20) as cache:
        cache.keep(KEY, KEPT)
        cache.keep(b"j" * 32, other)
    rows = sqlite3.connect(path)
    rows.execute("UPDATE answers SET answer = (SELECT answer FROM answers ORDER BY size LIMIT 1)")
    rows.commit()
    rows.close()

    with ExactCache(path, most_bytes=2**20) as cache:
        assert cache.find(KEY) == other


def test_attack_an_outbox_in_the_clear_beside_a_vault_is_refused(
    tmp_path: Path, vault: Vault
) -> None:
    """Else whoever writes to the disk would have this server send his requests."""
    plain = tmp_path / "outbox" / "requests.sqlite"
    outbox = Outbox(plain, most_bytes=2**20, most_waiting=9)
    outbox.put(b"an order of mine", tenant="t", lane="l", key="i", now_s=1, keep_s=99)
    outbox.close()

    with pytest.raises(InputError, match="is not sealed, and there is a vault"):
        opened_outbox(OutboxSettings(), home=tmp_path, metrics=Metrics())

    seal_stores(tmp_path)
    taken = opened_outbox(OutboxSettings(), home=tmp_path, metrics=Metrics())
    assert taken.counts() == {"waiting": 1}
    taken.close()


def test_what_waited_sealed_by_the_servers_file_is_sealed_by_the_vault(tmp_path: Path) -> None:
    """A request of the class redact is known again, and the file of the secret is gone."""
    before = Waiting(server_secret(tmp_path)).kept(ASKED.encode(), "redact")
    outbox = Outbox(tmp_path / "outbox" / "requests.sqlite", most_bytes=2**20, most_waiting=9)
    made, _ = outbox.put(before, tenant="t", lane="l", key="i", now_s=1, keep_s=99)
    outbox.close()
    init_vault(tmp_path, kind="key-file", place=str(tmp_path / "key"), asking=Asking({}))

    assert seal_stores(tmp_path) == ["outbox/requests.sqlite"]

    waiting = Waiting(waiting_secret(tmp_path))
    kept = waiting.kept(ASKED.encode(), "redact")
    outbox = opened_outbox(OutboxSettings(), home=tmp_path, metrics=Metrics())
    found = outbox.known(kept, tenant="t", key="i")
    outbox.close()
    assert found is not None
    assert found.id == made.id
    assert waiting.opened(found.body) == ASKED.encode()
    assert not (tmp_path / "keys" / "serving.key").exists()


@pytest.mark.usefixtures("vault")
@pytest.mark.parametrize("place", ["keys/signing.key", "access/keys.json", "access/local.token"])
def test_attack_a_key_in_the_clear_in_the_place_of_a_sealed_one_is_refused(
    tmp_path: Path, place: str
) -> None:
    """Nobody has this device sign by his key, or admit it."""
    store, trust = KeyStore(tmp_path), TrustStore(tmp_path)
    store.local_token(now_s=1)
    trust.seed()
    path = tmp_path / place
    assert is_sealed_file(path)
    other = tmp_path / "other"
    KeyStore(other).local_token(now_s=1)
    TrustStore(other).seed()
    path.write_bytes((other / place).read_bytes())

    with pytest.raises(InputError, match="is not sealed, and there is a vault"):
        trust.seed() if "signing" in place else store.local_token(now_s=2)

    assert place in seal_stores(tmp_path)
    assert trust.own() is not None


def test_a_vault_is_told_of_at_the_start(tmp_path: Path) -> None:
    """And that there is none."""
    assert vault_sentence(tmp_path).startswith("vault: none: ")
    init_vault(tmp_path, kind="key-file", place=str(tmp_path / "key"), asking=Asking({}))
    assert vault_sentence(tmp_path).startswith("vault: what is kept is encrypted; its key comes")

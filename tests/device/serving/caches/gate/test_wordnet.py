"""WordNet's own files, of which a tiny set is made here: what is read, and what is refused."""

from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON
from onhand.device.serving.caches.gate.wordnet import read_lexicon

LICENCE = "  1 This line and those that begin like it are no senses.\n"
FILES = {
    "data.noun": "00000010 06 n 02 gadget 0 gizmo 0 000 | a small thing\n"
    "00000020 04 n 01 roaming 0 001 + 00000010 v 0101 | going about\n",
    "data.verb": "00000010 38 v 02 roam 0 ramble 0 002 ! 00000020 v 0101 "
    "@ 00000020 v 0000 01 + 02 00 | go about\n"
    "00000020 38 v 01 abide 0 000 | not go\n",
    "data.adj": "00000010 00 a 02 brisk(p) 0 Zesty 0 000 | lively\n",
    "data.adv": "00000010 02 r 01 briskly 0 000 | in a lively way\n",
    "index.noun": "gadget n 1 0 1 1 00000010  \ngizmo n 1 0 1 0 00000010  \n"
    "roaming n 1 0 1 0 00000020  \n",
    "index.verb": "roam v 1 0 1 1 00000010  \nramble v 1 0 1 0 00000010  \n"
    "abide v 1 0 1 0 00000020  \n",
    "index.adj": "brisk a 1 0 1 1 00000010  \nzesty a 1 0 1 1 00000010  \n",
    "index.adv": "briskly r 1 0 1 0 00000010  \n",
    "cntlist.rev": "gadget%1:06:00:: 1 6\nroam%2:38:00:: 1 9\nbrisk%3:00:00:: 1 2\n"
    "roam%2:38:09:: 7 3\n",
}


def made(folder: Path, **changed: str | bytes) -> Path:
    folder.mkdir()
    for name, text in FILES.items():
        written = changed.get(name.replace(".", "_"), LICENCE + text)
        (folder / name).write_bytes(written.encode() if isinstance(written, str) else written)
    return folder


def test_words_are_read_beside_those_of_the_package(tmp_path: Path) -> None:
    """What stands for what, opposites, nouns made of verbs, and what names things."""
    words = read_lexicon(made(tmp_path / "dict"))

    assert words.is_wide
    assert words.are_same({"gizmo"}, {"gadget"})
    assert words.are_same({"roam"}, {"roaming"})
    assert words.are_opposite({"abide"}, {"roam"})
    assert not words.are_same({"brisk"}, {"zesty"})
    assert {"gadget", "roam", "brisk"} <= words.known
    assert "gadget" not in words.loose
    assert "roam" in words.loose
    assert OWN_LEXICON.same - words.opposite <= words.same


def test_counts_may_be_in_the_index_of_senses(tmp_path: Path) -> None:
    """As other packages have them: key, offset, number, count."""
    folder = made(tmp_path / "dict")
    (folder / "cntlist.rev").unlink()
    lines = "gadget%1:06:00:: 00000010 1 6\nroam%2:38:00:: 00000010 1 9\n"
    (folder / "index.sense").write_text(lines)

    assert read_lexicon(folder).are_same({"gizmo"}, {"gadget"})


@pytest.mark.parametrize("name", FILES)
def test_attack_a_file_is_missing(tmp_path: Path, name: str) -> None:
    """It is named, and what to install is said."""
    folder = made(tmp_path / "dict")
    (folder / name).unlink()

    with pytest.raises(InputError, match=rf"{name}: it cannot be read .*wordnet-base"):
        read_lexicon(folder)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"data_noun": FILES["data.noun"][:-9]}, "cut off"),
        ({"data_noun": FILES["data.noun"].splitlines()[0] + "\n"}, "data.noun has not"),
        ({"data_noun": ""}, "empty"),
        ({"data_noun": LICENCE}, "no senses"),
        ({"data_noun": FILES["data.noun"].replace("n 02", "n 7f")}, "line 1 is no sense"),
        ({"data_noun": FILES["data.noun"].replace("n 02", "n 00")}, "line 1 is no sense"),
        ({"data_noun": FILES["data.noun"].replace(" 000 ", " 999 ")}, "line 1 is no sense"),
        ({"data_noun": FILES["data.noun"].replace("0101", "0909")}, "line 2 is no sense"),
        ({"data_noun": FILES["data.noun"].replace("0101", "0109")}, "points nowhere"),
        ({"data_verb": b"\xff\xfe\x00\x01" * 64}, "no text"),
        ({"data_verb": "PK" + chr(0) * 64 + "\n"}, "no sense"),
        ({"index_noun": FILES["index.noun"].replace("n 1 0", "n x 0")}, "line 1 is no word"),
        ({"index_noun": FILES["index.noun"].replace("n 1 0", "n -5 0")}, "index.noun"),
        ({"index_noun": FILES["index.noun"].replace("00000020", "00000099")}, "has not"),
        ({"index_verb": FILES["index.verb"].splitlines()[0] + "\n"}, "'ramble'"),
        ({"cntlist_rev": "gadget 1 4\n"}, "line 1 counts no sense"),
        ({"cntlist_rev": "gadget%1:06:00:: 1 -4\n"}, "line 1 counts no sense"),
    ],
)
def test_attack_a_damaged_file_is_refused(
    tmp_path: Path, changed: dict[str, str | bytes], why: str
) -> None:
    """Cut off, empty, with wrong numbers, or of another kind: one sentence says which and why."""
    with pytest.raises(InputError, match=why) as refused:
        read_lexicon(made(tmp_path / "dict", **changed))

    assert "\n" not in str(refused.value)
    assert "wordnet-base" in str(refused.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With what to install."""
    with pytest.raises(InputError, match=r"no folder .*dict; install .*apt install wordnet-base"):
        read_lexicon(tmp_path / "dict")

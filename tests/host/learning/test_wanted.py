"""What `--learnable` says."""

from pathlib import Path

import pytest

from onhand.core.errors import InputError
from onhand.host.learning.wanted import Learnable, parse_learnable


def test_a_kind_alone_is_enough() -> None:
    """Everything else has a default; LoRA's scale is two."""
    wanted = parse_learnable("lora")

    assert wanted == Learnable(kind="lora")
    assert (wanted.rank, wanted.scale()) == (8, 16.0)


def test_options_stand_behind_commas() -> None:
    """Names in a list have a plus between them."""
    wanted = parse_learnable("lora, rank=4, alpha=6, targets=query+value")

    assert wanted == Learnable(kind="lora", rank=4, alpha=6.0, targets=("query", "value"))
    assert parse_learnable("head,classes=cup+lamp").classes == ("cup", "lamp")
    assert parse_learnable("last-block,cut=n7").cut == "n7"


def test_a_file_to_remember_must_be_there(tmp_path: Path) -> None:
    """Its place is no part of the bundle."""
    known = tmp_path / "known.jsonl"
    with pytest.raises(InputError, match="no file"):
        parse_learnable(f"lora,remember={known}")
    known.write_text("{}\n", encoding="utf-8")
    wanted = parse_learnable(f"lora,remember={known}")

    assert wanted.remember == known
    assert wanted.to_json()["remembers"] is True
    assert str(tmp_path) not in str(wanted.to_json())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("brain", "none of"),
        ("head,rank=3", "rank is not for it"),
        ("lora,rank=0", "rank is '0'"),
        ("lora,rank=x", "rank is 'x'"),
        ("lora,alpha=-1", "alpha"),
        ("lora,alpha=inf", "alpha"),
        ("lora,alpha=big", "alpha"),
        ("lora,rank=2,rank=3", "twice"),
        ("lora,size=3", "unknown 'size=3'"),
        ("lora,rank", "unknown 'rank'"),
        ("head,classes=a++b", "names"),
        ("head,classes=a+a", "names"),
        ("last-block,cut=", "empty"),
    ],
)
def test_a_slip_is_said(text: str, why: str) -> None:
    """The sentence names what is wrong."""
    with pytest.raises(InputError, match=why):
        parse_learnable(text)


def test_provenance_holds_what_decides_the_bytes() -> None:
    """A head has no rank, so that equal builds have equal manifests."""
    assert parse_learnable("head").to_json()["rank"] == 0
    assert parse_learnable("lora,rank=2").to_json()["alpha"] == 4.0

"""What a bundle says of itself, and manifests that lie."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from onhand.core.errors import BundleCorrupt, BundleError, BundleTooNew
from onhand.core.manifest import FORMAT, Manifest, parse_manifest, render_manifest
from onhand.core.quantized import GroupFormat

Change = Callable[[dict[str, Any]], object]


def changed(manifest: Manifest, change: Change) -> bytes:
    """The bytes of a manifest after a change to its table."""
    table = json.loads(render_manifest(manifest))
    change(table)
    return json.dumps(table).encode()


def test_same_manifest_same_bytes(with_files: Manifest) -> None:
    """Read back it is equal; written again, and from another order of keys, the bytes are."""
    content = render_manifest(with_files)

    again = parse_manifest(content, where="tiny")

    assert again == with_files
    assert render_manifest(again) == content
    other = replace(
        with_files,
        files=dict(list(with_files.files.items())[::-1]),
        variants=dict(list(with_files.variants.items())[::-1]),
        provenance=dict(list(with_files.provenance.items())[::-1]),
    )
    assert render_manifest(other) == content
    assert content.endswith(b"}\n")


def test_a_later_format_says_what_to_do(with_files: Manifest) -> None:
    """Whatever else a later format changed, the number alone decides."""
    content = json.dumps({"format": FORMAT + 1, "anything": []}).encode()

    with pytest.raises(BundleTooNew, match=r"format 3, this reader knows up to 2; install a later"):
        parse_manifest(content, where="tiny")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "a/..",
        "/etc/passwd",
        "//x",
        "a//b",
        "./a",
        "a/./b",
        "a/",
        "",
        ".",
        "..",
        ".hidden",
        "a/.hidden",
        "a\\b",
        "..\\x",
        "C:x",
        "C:\\x",
        "a b",
        "a\nb",
        "a\n",
        "a\x00",
        "\u00e4",
        "\u202ea",
        "-a",
        "a" * 101,
        "a/b/c/d/e",
    ],
    ids=repr,
)
def test_attack_file_names(with_files: Manifest, name: str) -> None:
    """No name climbs, starts at a root, hides, or reads differently on another system."""
    entry = {"size": 0, "sha256": "0" * 64}

    with pytest.raises(BundleCorrupt, match="is not a plain path inside the bundle"):
        parse_manifest(
            changed(with_files, lambda table: table["files"].update({name: entry})), where="tiny"
        )


@pytest.mark.parametrize("name", ["a", "model-1_2+x.onnx", "a/b/c/d", "0", "a" * 100])
def test_plain_file_names_are_kept(with_files: Manifest, name: str) -> None:
    """Folders with forward slashes, four parts deep at most."""
    entry = {"size": 7, "sha256": "0" * 64}

    content = changed(with_files, lambda table: table["files"].update({name: entry}))

    assert parse_manifest(content, where="tiny").files[name].size == 7


def put(*keys: str, value: object) -> Change:
    """A change that sets one value deep in the table."""

    def change(table: dict[str, Any]) -> None:
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    return change


INT4 = ("variants", "int4")
FORM = (*INT4, "matrices", "embed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value=0), "no format number"),
        (put("format", value=True), "no format number"),
        (put("format", value="1"), "no format number"),
        (put("kind", value="virus"), "kind 'virus' is not one that this version runs"),
        (put("name", value="../x"), "name '../x' must be 1 to 100 of"),
        (put("name", value=7), "name 7 must be"),
        (put("version", value=0), "version is 0"),
        (put("version", value=True), "version is True"),
        (put("version", value=1.5), "version is 1.5"),
        (put("default_variant", value="int2"), "default variant 'int2' is not among"),
        (put("default_variant", value=["int4"]), "default variant ['int4'] is not among"),
        (put("files", value=[]), "files is not a JSON object"),
        (put("files", "model.onnx", value=3), "file 'model.onnx': entry is not a JSON object"),
        (put("files", "model.onnx", "size", value=-1), "size -1 is not a whole number"),
        (put("files", "model.onnx", "size", value=True), "size True is not a whole number"),
        (put("files", "model.onnx", "size", value=1.0), "size 1.0 is not a whole number"),
        (put("files", "model.onnx", "sha256", value="0" * 63), "is not 64 hex digits"),
        (put("files", "model.onnx", "sha256", value="A" * 64), "is not 64 hex digits"),
        (put("files", "model.onnx", "sha256", value=None), "is not 64 hex digits"),
        (put("provenance", value=None), "provenance is not a JSON object"),
        (put("decoder", "width", value=2**60), "width is"),
        (put("decoder", value=None), "decoder: must be a JSON object"),
        (put("decoder", "norm_epsilon", value=10**299), "norm_epsilon is"),
        (put("decoder", "norm_epsilon", value=10**400), "a number has 401 digits"),
        (put("variants", value=[]), "variants is not a JSON object"),
        (put("variants", "../x", value={}), "name '../x' must be"),
        (put(*INT4, value=None), "a variant must be a JSON object"),
        (put(*INT4, "graph", value="absent.onnx"), "names 'absent.onnx', which is not among"),
        (put(*INT4, "graph", value="../../x"), "which is not among the files"),
        (put(*INT4, "graph", value=["model.onnx"]), "names ['model.onnx'], which is not"),
        (put(*INT4, "weights", value=["absent"]), "names 'absent', which is not among"),
        (put(*INT4, "weights", value=[]), "weights must be a list of files"),
        (put(*INT4, "weights", value="model.onnx"), "weights must be a list of files"),
        (put(*INT4, "matrices", value=None), "matrices is not a JSON object"),
        (put(*INT4, "matrices", "extra", value=None), "matrix 'extra' is in the variant or"),
        (put(*INT4, "accuracy_level", value=2), "accuracy_level is 2, must be 0, 1 or 4"),
        (put(*INT4, "accuracy_level", value=True), "accuracy_level is True"),
        (put(*INT4, "accuracy_level", value=4.0), "accuracy_level is 4.0"),
        (put(*INT4, "accuracy_level", value=[]), "accuracy_level is []"),
        (put(*FORM, value="int4"), "needs bits, group_size and symmetric"),
        (put(*FORM, value={"bits": 4}), "needs bits, group_size and symmetric"),
        (put(*FORM, "extra", value=1), "needs bits, group_size and symmetric"),
        (put(*FORM, "bits", value=4.0), "needs two whole numbers and true or false"),
        (put(*FORM, "group_size", value="32"), "needs two whole numbers and true or false"),
        (put(*FORM, "symmetric", value=1), "needs two whole numbers and true or false"),
        (put(*FORM, "bits", value=5), "bits is 5, must be one of"),
        (put(*FORM, "group_size", value=33), "group_size is 33, must be one of"),
        (lambda table: table[INT4[0]]["int4"]["matrices"].pop("embed"), "matrix 'embed' is in"),
        (lambda table: table.pop("kind"), "no 'kind'"),
        (lambda table: table.pop("decoder"), "no 'decoder'"),
        (lambda table: table.pop("format"), "no format number"),
    ],
)
def test_attack_manifest_that_lies(with_files: Manifest, change: Change, message: str) -> None:
    """Each lie is one sentence that names the bundle and what was found."""
    with pytest.raises(BundleCorrupt) as caught:
        parse_manifest(changed(with_files, change), where="tiny")

    assert str(caught.value).startswith("tiny: manifest")
    assert message in str(caught.value)


def test_attack_every_key_with_every_kind_of_value(with_files: Manifest) -> None:
    """Whatever stands at any place of the table, the answer is a manifest or one of our errors."""
    table = json.loads(render_manifest(with_files))

    def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inside: list[tuple[object, object]] = []
        if isinstance(value, dict | list):
            inside = list(value.items() if isinstance(value, dict) else enumerate(value))
        return [path, *(p for key, part in inside for p in places(part, (*path, key)))]

    wrong: list[object] = [None, True, -1, 2**70, 10**400, 0.5, "", "x", [], {}, [[]], {"x": []}]
    n_refused = 0
    for path in filter(None, places(table)):
        for value in wrong:
            spoiled = json.loads(json.dumps(table))
            inner = spoiled
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            try:
                parse_manifest(json.dumps(spoiled).encode(), where="tiny")
            except BundleError:
                n_refused += 1

    assert n_refused > 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest is not JSON"),
        (b"\xff", "manifest is not JSON"),
        (b"[" * 100_000, "manifest is not JSON"),
        (b'{"format": ' + b"1" * 5000 + b"}", "manifest is not JSON"),
        (b'{"format": 1, "format": 1}', "manifest is not JSON: 'format' is given twice"),
        (b"[]", "manifest is not a JSON object"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_attack_manifest_that_is_none(content: bytes, message: str) -> None:
    """Broken, nested without end, or of two meanings."""
    with pytest.raises(BundleCorrupt, match=message):
        parse_manifest(content, where="tiny")


def test_a_provenance_that_json_cannot_hold_is_not_written(with_files: Manifest) -> None:
    """No manifest is written that its own reader would refuse."""
    spoiled = replace(with_files, provenance={"error": float("nan")})

    with pytest.raises(ValueError, match="not JSON compliant"):
        render_manifest(spoiled)


def test_every_format_of_a_matrix_is_kept(with_files: Manifest) -> None:
    """All widths and group sizes, with and without zero points."""
    variant = with_files.variants["int4"]
    for bits in GroupFormat.BITS:
        for symmetric in (True, False):
            form = GroupFormat(bits=bits, group_size=64, symmetric=symmetric)
            mixed = replace(variant, matrices=dict(variant.matrices) | {"embed": form})
            made = replace(with_files, variants=dict(with_files.variants) | {"int4": mixed})

            assert parse_manifest(render_manifest(made), where="tiny") == made

"""Benchmarks of bundles, in child processes, with an engine that a third party registered."""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tokenizers

from onhand.core.bundle import read_bundle, write_manifest
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.errors import BundleCorrupt, EngineError, EngineUnavailable, InputError
from onhand.core.manifest import Manifest, Variant
from onhand.core.measurement import Measurement
from onhand.core.profile import render_profile
from onhand.device.bench import NAMES, bench
from onhand.device.bench_child import Job, run_job
from onhand.device.engines.base import KvKind
from onhand.device.measured import job_text, peak_memory_bytes
from onhand.device.probe import current_profile

LARGE = 96 * 2**20
VOCABULARY = 40
FAKE_ENGINE = f"""
import os, signal, sys
import numpy as np
from onhand.core.errors import EngineError

print("an engine may print what it likes", flush=True)

class Session:
    def __init__(self):
        self.length, self.context, self.rewound = 0, 64, 0
    def rewind(self, length):
        assert length == 0
        self.length, self.rewound = length, self.rewound + 1

class Loaded:
    vocab_size, context = {VOCABULARY}, 64
    def __init__(self, variant, threads):
        self.variant = variant
        self.weights = np.ones({LARGE} if variant == "large" else 1, dtype=np.uint8)
        sys.stderr.write(f"opened with {{threads}} threads\\n")
    def session(self, *, context=None):
        return Session()
    def step(self, batch):
        (session, tokens), = batch
        assert tokens.dtype == np.int64 and tokens.ndim == 1
        if self.variant == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.variant == "late" and session.rewound == 2:
            raise EngineError("the kernel\\nfailed late")
        if self.variant == "tells":
            raise EngineError(f"it was given {{sorted(set(tokens.tolist()))}}")
        if self.variant == "crashes":
            raise ZeroDivisionError("by nothing")
        session.length += tokens.size
        assert session.length < session.context
        return np.eye(1, {VOCABULARY}, session.length % {VOCABULARY}, dtype=np.float32)

    def close(self):
        pass

class Fake:
    name, kv_kinds = "fake", ("fp16",)
    def why_not(self, bundle, profile, *, variant):
        return "it dislikes this variant" if variant == "disliked" else None
    def open(self, bundle, *, variant, threads, adapter=None, kv="its own way"):
        if variant == "keeps":
            raise EngineError(f"it keeps keys as {{kv}}")
        if variant == "plain":
            Loaded.use_bf16_prefill = lambda loaded: None
        return Loaded(variant, threads)
"""
VARIANTS = ("plain", "large", "killed", "late", "crashes", "disliked", "tells", "keeps")


@pytest.fixture(scope="module", autouse=True)
def _fake_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package of somebody else's, installed here and in the child processes."""
    place = tmp_path_factory.mktemp("third-party")
    (place / "fake_engine.py").write_text(FAKE_ENGINE)
    known = place / "fake_engine-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-engine\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text("[onhand.engines]\nfake = fake_engine:Fake\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
        yield
    sys.modules.pop("fake_engine", None)


def make_bundle(root: Path, *, tokenizer: str = "") -> Path:
    """A bundle that only the fake engine can open: its weights are 100 bytes for each variant."""
    root.mkdir()
    if tokenizer:
        (root / "tokenizer.json").write_text(tokenizer)
    layer = DecoderLayer(n_heads=1, n_kv_heads=1, head_dim=2, mlp_width=2)
    decoder = Decoder(
        vocab_size=VOCABULARY, width=2, context=64, norm_epsilon=1e-5, layers=(layer,)
    )
    variants = {}
    for name in VARIANTS:
        (root / f"{name}.onnx").write_bytes(b"g")
        (root / f"{name}.weights").write_bytes(bytes(100))
        variants[name] = Variant(
            graph=f"{name}.onnx",
            weights=(f"{name}.weights",),
            matrices=dict.fromkeys(decoder.matrices()),
            accuracy_level=0,
        )
    manifest = Manifest(
        name="tiny-fake",
        kind="language-model",
        version=1,
        default_variant="plain",
        variants=variants,
        model=decoder,
        files={},
        provenance={},
    )
    write_manifest(root, manifest, hashes={})
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "folder-name")


class Told:
    """Remembers what it is told. See `Progress`."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}

    def start(self, what: str, total: float) -> None:
        """See `Progress`."""
        self.stages[what] = [total, 0]
        self.now = what

    def advance(self, amount: float) -> None:
        """See `Progress`."""
        self.stages[self.now][1] += amount

    def note(self, text: str) -> None:
        """Nothing in these runs is worth a note."""
        raise AssertionError(text)


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def found(bundle: Path, told: Told) -> dict[str, Measurement]:
    """One real run, which several tests look at."""
    return bench(bundle, engine="fake", threads=1, runs=2, kv="fp16", prefill="bf16", progress=told)


def test_every_figure_is_there(found: dict[str, Measurement]) -> None:
    """The names are stable, and each value is a positive measurement of that name."""
    assert tuple(found) == NAMES
    assert all(found[name].name == name for name in NAMES)
    assert all(figure.value > 0 for figure in found.values())
    units = "byte s s s 1/s 1/s byte joule byte/s"
    assert [found[name].unit for name in NAMES] == units.split()


def test_samples_are_what_was_asked_for(found: dict[str, Measurement]) -> None:
    """Never fewer than three starts; as many answers as runs; exact counts have no spread."""
    assert found["cold_start_s"].samples == found["load_s"].samples == 3
    assert found["decode_tokens_per_s"].samples == found["energy_j_per_token"].samples == 2
    assert found["size_bytes"].spread == found["peak_memory_bytes"].spread == 0


def test_figures_agree_with_each_other(found: dict[str, Measurement], bundle: Path) -> None:
    """The size is the variant's own; a cold start holds a load; Python is in the memory."""
    assert found["size_bytes"].value == 101 == read_bundle(bundle).size_bytes("plain")
    assert found["cold_start_s"].value > found["load_s"].value
    assert found["peak_memory_bytes"].value > 10 * 2**20


def test_default_lengths_shrink_and_say_so(found: dict[str, Measurement]) -> None:
    """The command gives the lengths used and the bundle's own name, not a folder."""
    how = found["decode_tokens_per_s"].how

    assert how == (
        "onhand bench tiny-fake --variant plain --engine fake --threads 1 --prompt-tokens "
        "48 --generated-tokens 16 --runs 2 --kv fp16 --prefill bf16"
        "  # default lengths cut to the context of 64 tokens"
    )
    assert all(str(Path.cwd()) not in figure.how for figure in found.values())


def test_energy_says_how_it_was_found(found: dict[str, Measurement]) -> None:
    """Estimated or counted, the formula or the counter is beside the command."""
    energy = found["energy_j_per_token"]

    assert energy.estimated is ("joules = " in energy.how)
    assert energy.estimated or "energy counters of" in energy.how
    assert not any(found[name].estimated for name in NAMES if name != "energy_j_per_token")


def test_progress_is_complete(found: dict[str, Measurement], told: Told) -> None:
    """Every stage ends at its total."""
    assert found
    assert told.stages.keys() == {"starting", "measuring memory bandwidth", "generating"}
    assert all(done == total for total, done in told.stages.values())


def speed(root: Path, variant: str, *, prompt: tuple[int, ...] = (1, 2, 3)) -> Job:
    return Job(
        work="speed",
        root=str(root),
        variant=variant,
        engine="fake",
        profile=render_profile(current_profile()),
        threads=1,
        prompt=prompt,
        generated_tokens=4,
        runs=1,
    )


def test_peak_memory_is_the_generating_process_alone(
    found: dict[str, Measurement], bundle: Path
) -> None:
    """Weights of 96 MiB show in the figure; what the measuring side holds does not."""
    ballast = bytearray(4 * LARGE)
    large = bench(bundle, variant="large", engine="fake", threads=1, runs=1, generated_tokens=2)
    difference = large["peak_memory_bytes"].value - found["peak_memory_bytes"].value

    assert len(ballast) == 4 * LARGE
    assert 0.9 * LARGE < difference < 1.2 * LARGE


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("killed", r"bench tiny-fake: the measuring process \(start\) was killed by signal 9"),
        ("late", r"\(speed\) ended with code 1: failed late$"),
        ("crashes", r"\(start\) ended with code 1: ZeroDivisionError: by nothing$"),
    ],
)
def test_a_child_that_dies_is_one_error(bundle: Path, variant: str, message: str) -> None:
    """The error names the process's last line, whatever was printed before."""
    with pytest.raises(EngineError, match=message):
        bench(bundle, variant=variant, engine="fake", runs=1, threads=1)


def test_a_missing_bundle_is_the_callers_mistake(tmp_path: Path) -> None:
    """No process is started for it."""
    with pytest.raises(InputError, match="not a bundle"):
        bench(tmp_path / "nothing")


def test_a_changed_bundle_is_not_measured(tmp_path: Path) -> None:
    """Figures of a damaged file would be of nothing."""
    root = make_bundle(tmp_path / "bundle")
    (root / "plain.weights").write_bytes(b"x" * 100)

    with pytest.raises(BundleCorrupt, match=r"plain\.weights"):
        bench(root, engine="fake")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_tokens": 60, "generated_tokens": 5}, "60 prompt tokens and 5 .* context of 64"),
        ({"prompt_tokens": 63}, "63 prompt tokens and 2 .* context of 64"),
        ({"generated_tokens": 64}, "1 prompt tokens and 64 .* context of 64"),
        ({"prompt_tokens": 0}, "needs at least 1 and 2"),
        ({"generated_tokens": 1}, "needs at least 1 and 2"),
        ({"runs": 0}, "must be at least 1"),
        ({"threads": 0}, "must be at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    bundle: Path, options: dict[str, int], message: str
) -> None:
    """What was asked for is never cut; only defaults are."""
    with pytest.raises(InputError, match=message):
        bench(bundle, engine="fake", **options)  # type: ignore[arg-type]  # numbers only


def test_unknown_names_are_refused(bundle: Path) -> None:
    """An engine or variant that is not there, and one that its engine will not run."""
    with pytest.raises(InputError, match="unknown engine 'fak'; did you mean 'fake'"):
        bench(bundle, engine="fak")
    with pytest.raises(InputError, match="no variant 'int5'"):
        bench(bundle, variant="int5", engine="fake")
    with pytest.raises(EngineUnavailable, match="fake: it dislikes this variant"):
        bench(bundle, variant="disliked", engine="fake")
    with pytest.raises(InputError, match="kv is 'int4', must be one of fp16, int8"):
        bench(bundle, engine="fake", kv="int4")  # type: ignore[arg-type]  # what a user may write


def test_an_engine_that_cannot_is_named(bundle: Path) -> None:
    """Keys and values, the head, or prompts, of a way that it does not have."""
    with pytest.raises(EngineUnavailable, match="fake: it does not keep keys and values as int8"):
        bench(bundle, engine="fake", kv="int8")
    with pytest.raises(EngineError, match="fake has no head of two stages; native has one"):
        bench(bundle, engine="fake", head="two-stage")
    with pytest.raises(EngineError, match="fake has no prefill in bf16; native has one"):
        bench(bundle, variant="tells", engine="fake", prefill="bf16")


@pytest.mark.parametrize(("kv", "kept"), [(None, "its own way"), ("fp16", "fp16")])
def test_keys_and_values_are_kept_as_asked_for(bundle: Path, kv: KvKind | None, kept: str) -> None:
    """By the process that is measured."""
    with pytest.raises(EngineError, match=f"it keeps keys as {kept}$"):
        bench(bundle, variant="keeps", engine="fake", kv=kv)


@pytest.mark.parametrize("special", [(), ("<s>", "word3")])
def test_the_prompt_holds_ordinary_tokens_only(tmp_path: Path, special: tuple[str, ...]) -> None:
    """Ids without a token, and special tokens, could make an engine behave oddly."""
    words = {"<s>": 0, **{f"word{i}": i for i in range(1, 7)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="word1"))  # noqa: S106 (no password)
    tokenizer.add_special_tokens(list(special))
    root = make_bundle(tmp_path / "bundle", tokenizer=tokenizer.to_str())
    expected = sorted(set(range(7)) - {words[word] for word in special})

    with pytest.raises(EngineError, match=re.escape(f"it was given {expected}")):
        bench(root, variant="tells", engine="fake", threads=1, runs=1)


def test_without_a_tokenizer_any_token_may_come(bundle: Path) -> None:
    """The prompt is random: 48 draws hit many of the 40 ids, all of them in the vocabulary."""
    with pytest.raises(EngineError, match=r"it was given") as caught:
        bench(bundle, variant="tells", engine="fake", threads=1, runs=1)
    ids = json.loads(str(caught.value).partition("given ")[2])

    assert 15 < len(ids) <= VOCABULARY
    assert 0 <= min(ids) <= max(ids) < VOCABULARY


def test_a_tokenizer_of_special_tokens_gives_no_prompt(tmp_path: Path) -> None:
    """There must be something to ask with."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({}))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    root = make_bundle(tmp_path / "bundle", tokenizer=tokenizer.to_str())

    with pytest.raises(InputError, match="no ordinary token"):
        bench(root, engine="fake")


def test_our_engines_come_first(bundle: Path) -> None:
    """Without a name the preferred engine is taken, here for files that no engine can read."""
    with pytest.raises(EngineError, match=r"\(start\) ended with code 1: .*plain"):
        bench(bundle, threads=1, runs=1)


def test_events_are_lines_of_json(bundle: Path) -> None:
    """A start tells of its first token before anything else; a speed run of every answer."""
    out = StringIO()
    run_job(replace(speed(bundle, "plain"), work="start"), out)
    run_job(speed(bundle, "plain"), out)
    events = [json.loads(line) for line in out.getvalue().splitlines()]

    assert [event["event"] for event in events] == ["first-token", "start", "warm", "run", "speed"]
    assert events[3]["prefill_tokens_per_s"] >= 3 / events[3]["time_to_first_token_s"]


def test_a_job_travels_as_json(bundle: Path) -> None:
    """What the parent writes is what the child reads."""
    job = speed(bundle, "plain", prompt=(5, 6))
    table = json.loads(job_text(job))

    assert Job(**{**table, "prompt": tuple(table["prompt"])}) == job


def test_the_kernels_high_water_mark_is_used(tmp_path: Path) -> None:
    """VmHWM where it is, else the accounting of the process, which is as large as this one."""
    (tmp_path / "proc/self").mkdir(parents=True)
    assert peak_memory_bytes(tmp_path) > 10 * 2**20

    (tmp_path / "proc/self/status").write_text("VmPeak:\t 9 kB\nVmHWM:\t   7 kB\n")
    assert peak_memory_bytes(tmp_path) == 7 * 1024


def test_a_folder_of_our_name_is_not_imported(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring from a folder that holds `onhand` runs the installed one."""
    (tmp_path / "onhand").mkdir()
    (tmp_path / "onhand" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(EngineError) as caught:
        bench(bundle, variant="crashes", engine="fake", threads=1, runs=1)
    assert re.search("by nothing$", str(caught.value))

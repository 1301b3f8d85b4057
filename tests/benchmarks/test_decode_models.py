"""Which engines the benchmark of decoding measures."""

from pathlib import Path

from benchmarks.decode_models import BF16, OURS, Model, able

ABLE = "#!/bin/sh\nread -r job\necho '{}'\n"
UNABLE = "#!/bin/sh\nexit 1\n"


def model(folder: Path, engine: str, worker: str) -> Model:
    """An engine whose process is a script."""
    python = folder / f"{engine}.sh"
    python.write_text(worker)
    python.chmod(0o755)
    return Model(engine=engine, place=folder, python=python)


def test_a_processor_without_bf16_is_told_and_the_rest_is_measured(tmp_path: Path) -> None:
    """Its process ends, as opening refuses there; the exact way goes on."""
    notes: list[str] = []
    models = {OURS: model(tmp_path, OURS, ABLE), BF16: model(tmp_path, BF16, UNABLE)}

    found = able(models, 1, notes)

    assert found == {OURS: models[OURS]}
    assert notes == [
        "native, --prefill bf16, which needs a processor with AMX, is left out: "
        "a worker ended with status 1"
    ]

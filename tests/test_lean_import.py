"""Importing onhand is quick, light, and changes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
HEAVY = (
    "PIL",
    "gguf",
    "huggingface_hub",
    "httpx2",
    "jinja2",
    "keras",
    "llguidance",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "prometheus_client",
    "psutil",
    "ray",
    "scipy",
    "starlette",
    "tensorflow",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
    "onhand.host",
)
# Adapters of one package, imported by the functions that need it: module -> package.
ADAPTERS = {"onhand.device.sandbox": "jinja2"}
# Imports one module as the first thing of a process, and says what came with it.
PROBE = """
import importlib, json, logging, os, sys, threading, warnings
import numpy
def state():
    return {
        "environment": dict(os.environ),
        "folder": sorted(os.listdir()),
        "threads": threading.active_count(),
        "log": [len(logging.root.handlers), logging.root.level],
        "filters": len(warnings.filters),
    }
before = state()
importlib.import_module(sys.argv[1])
after = state()
changed = [key for key in before if before[key] != after[key]]
print(json.dumps({"modules": sorted(sys.modules), "changed": changed}))
"""


def modules(*layers: str) -> list[str]:
    """Names of all modules of some layers."""
    paths = sorted(path for layer in layers for path in (SRC / "onhand" / layer).rglob("*.py"))
    names = [".".join(path.relative_to(SRC).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def imported(module: str, folder: Path) -> dict[str, list[str]]:
    """Import a module in a fresh process: what was loaded, what changed."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, module],
        check=True,
        capture_output=True,
        cwd=folder,
        # What Python itself keeps of a module is not the module's doing.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        text=True,
    )
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


def loads(found: dict[str, list[str]]) -> list[str]:
    """The heavy packages among the loaded modules."""
    return [name for name in HEAVY if name in found["modules"]]


def test_core_and_device_load_nothing_heavy(tmp_path: Path) -> None:
    """Heavy packages are imported by the functions that use them, adapters by theirs."""
    together = tmp_path / "together.py"
    names = ["onhand", *(name for name in modules("core", "device") if name not in ADAPTERS)]
    together.write_text("".join(f"import {name}\n" for name in names))

    found = imported("together", tmp_path)

    assert loads(found) == []


@pytest.mark.parametrize("module", ADAPTERS)
def test_an_adapter_loads_its_own_package_alone(module: str, tmp_path: Path) -> None:
    """It is the door to one package, and to no other."""
    assert loads(imported(module, tmp_path)) == [ADAPTERS[module]]


@pytest.mark.parametrize("layer", ["core", "device", "cli"])
def test_importing_changes_nothing(layer: str, tmp_path: Path) -> None:
    """No environment change, file, thread, log handler or warning filter comes with an import."""
    (tmp_path / "together.py").write_text("".join(f"import {name}\n" for name in modules(layer)))

    found = imported("together", tmp_path)

    assert found["changed"] == []


def test_the_front_is_light(tmp_path: Path) -> None:
    """`import onhand` loads core alone."""
    found = imported("onhand", tmp_path)

    assert loads(found) == []
    assert [name for name in found["modules"] if name.startswith("onhand.device")] == []

"""The map of who may import whom. Change it in a commit of its own."""

import ast
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "onhand"
CORE = {"cryptography", "numpy"}
DEVICE = CORE | {
    "PIL",
    "httpx2",
    "jinja2",
    "keyring",
    "llguidance",
    "onnxruntime",
    "openvino",
    "prometheus_client",
    "psutil",
    "starlette",
    "tokenizers",
    "uvicorn",
}
HOST = DEVICE | {
    "gguf",
    "google",
    "h5py",
    "huggingface_hub",
    "keras",
    "matplotlib",
    "onnx",
    "ray",
    "safetensors",
    "scipy",
    "tensorflow",
    "threadpoolctl",
    "torch",
    "transformers",
    "triton",
}
MAY_IMPORT = {  # layer -> layers of ours, third-party packages
    "core": (set[str](), CORE),
    "native": (set[str](), set[str]()),
    "device": ({"core", "native"}, DEVICE),
    "host": ({"core", "device"}, HOST),
    "cli": ({"core", "device", "host"}, {"rich", "typer"}),
}
# `_typeshed` is for type checkers alone: importing it when running would fail at once.
STANDARD = sys.stdlib_module_names | {"_typeshed"}
FRONT = sorted(SRC.glob("*.py"))
FILES = sorted(set(SRC.rglob("*.py")) - set(FRONT))


def imports(tree: ast.AST) -> set[str]:
    """Every absolute module name that is imported, at any depth."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "onhand":
            names |= {f"onhand.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def strangers(layer: str, tree: ast.AST) -> list[str]:
    """Imports that a layer may not have, sorted."""
    ours, theirs = MAY_IMPORT[layer]
    outside = sorted(MAY_IMPORT.keys() - ours - {layer})
    found: list[str] = []
    for name in sorted(imports(tree)):
        top, *rest = name.split(".")
        if top == "onhand" and rest:
            found += [name] if rest[0] in outside else []
        elif top != "onhand" and top not in theirs | STANDARD:
            found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_follow_the_map(path: Path) -> None:
    """A file imports its own layer, the layers below it, and listed packages."""
    layer = path.relative_to(SRC).parts[0]

    assert layer in MAY_IMPORT, f"{layer} is not a layer; DESIGN has {', '.join(MAY_IMPORT)}"
    assert not strangers(layer, ast.parse(path.read_text())), f"{layer} must not import these"


def for_types_only(node: ast.stmt) -> bool:
    """Whether a statement is an `if TYPE_CHECKING:` block, which never runs."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        and not node.orelse
    )


@pytest.mark.parametrize("path", FRONT, ids=lambda path: path.name)
def test_the_front_imports_core_and_the_rest_late(path: Path) -> None:
    """`import onhand` loads core only; its functions may load device and host when called."""
    tree = ast.parse(path.read_text())
    inside = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    rest = [node for node in tree.body if node not in inside and not for_types_only(node)]
    outside = ast.Module(rest, [])

    assert not strangers("core", outside), "at module level the front imports core only"
    # `python -m onhand` is the command line.
    most = "cli" if path.name == "__main__.py" else "host"
    for function in inside:
        assert not strangers(most, function), f"{function.name} must not import these"


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("core", "import onnxruntime"),
        ("core", "from onhand.device import engines"),
        ("core", "from onhand import device"),
        ("device", "def late():\n    import torch"),
        ("device", "from onhand.host.sources import huggingface"),
        ("host", "import onhand.cli.main"),
        ("host", "import typer"),
        ("cli", "import numpy"),
    ],
)
def test_the_map_refuses(layer: str, line: str) -> None:
    """The check sees every form of import that would go the wrong way."""
    assert strangers(layer, ast.parse(line))

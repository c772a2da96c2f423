"""The architecture, proved from the syntax trees: imports only go down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lupctl"

# part -> floor; parts on one floor do not see each other, save where FRIENDS says so.
FLOORS = {
    "lupctl.core.errors": 0,
    "lupctl.core.choices": 0,
    "lupctl.core.device": 1,
    "lupctl.core.cluster": 1,
    "lupctl.core.dist": 1,
    "lupctl.core.files": 1,
    "lupctl.core.launch": 1,
    "lupctl.core.progress": 1,
    "lupctl.core.bars": 1,
    "lupctl.core.workspace": 1,
    "lupctl.core.threads": 1,
    "lupctl.core.unpickle": 1,
    "lupctl.core.names": 1,
    "lupctl.core.archives": 1,
    "lupctl.core.verdicts": 1,
    "lupctl.core.formats": 2,
    "lupctl.core.sources": 2,
    "lupctl.core.loading": 3,
    "lupctl.core.nets": 3,
    "lupctl.core.losses": 3,
    "lupctl.core.metrics": 3,
    "lupctl.core.pages": 3,
    "lupctl.core.train": 3,
    "lupctl.core.packing": 3,
    "lupctl.core.video": 3,
    "lupctl.core.methods": 4,
    "lupctl.core.recipes": 4,
    "lupctl.core.retrieval": 4,
    "lupctl.core.stages": 5,
    "lupctl.cli": 6,
}
# A progress line opens a bar; both are one noun in two files because rich is slow to import.
FRIENDS = {("lupctl.core.progress", "lupctl.core.bars")}
FLOOR_ONE = {part for part, floor in FLOORS.items() if floor == 1}
RECIPES_MAY_IMPORT = {"lupctl.core.errors", "lupctl.core.choices", "lupctl.core.files"}
CLI_LIGHT = {
    "lupctl.core.errors", "lupctl.core.choices", "lupctl.core.cluster", "lupctl.core.workspace", "lupctl.core.progress",
    "lupctl.cli",
}  # fmt: skip
HEAVY = {
    "torch", "torchvision", "h5py", "cv2", "faiss", "numpy", "matplotlib", "jinja2", "pydantic", "safetensors", "onnx",
    "onnxruntime", "onnxscript",
}  # fmt: skip

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def part_of(module: str) -> str:
    """The longest known part that holds a module; each stage and each of the single files is a part."""
    if module.startswith("lupctl.core.stages."):
        return ".".join(module.split(".")[:4])
    candidates = [part for part in FLOORS if module == part or module.startswith(part + ".")]
    assert candidates, f"{module} lies in no part: give it a floor in {Path(__file__).name}"
    return max(candidates, key=len)


def floor_of(part: str) -> int:
    return FLOORS["lupctl.core.stages"] if part.startswith("lupctl.core.stages.") else FLOORS[part]


def imports_of(tree: ast.Module, *, top_level_only: bool) -> list[str]:
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    module = module_name(path)
    part = part_of(module)
    for target in imports_of(ast.parse(path.read_text(encoding="utf-8")), top_level_only=False):
        assert target.split(".")[0] != "click", f"{module} imports click; Typer's public names only"
        if not target.startswith("lupctl"):
            continue
        below = part_of(target)
        if below == part or (part, below) in FRIENDS:
            continue
        if floor_of(part) == 1 and below in FLOOR_ONE and floor_of(below) == 1:
            continue  # floor 1 is one room of small files; cycles are caught by the import itself
        assert floor_of(below) < floor_of(part), (
            f"{module} (floor {floor_of(part)}) imports {target} ({floor_of(below)})"
        )


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_cli_is_light_and_recipes_are_pure(path: Path) -> None:
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if module.startswith("lupctl.cli."):
        for target in imports_of(tree, top_level_only=True):
            assert target.split(".")[0] not in HEAVY, f"{module} imports {target} at module level"
            if target.startswith("lupctl"):
                assert part_of(target) in CLI_LIGHT, f"{module} imports {target} at module level"
    if part_of(module) == "lupctl.core.recipes":
        for target in imports_of(tree, top_level_only=False):
            if target.startswith("lupctl") and part_of(target) != "lupctl.core.recipes":
                assert target in RECIPES_MAY_IMPORT, f"{module} imports {target}"


def test_init_files_are_empty() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert path.read_text(encoding="utf-8") == "", f"{path} is not empty"


def test_every_folder_is_a_package() -> None:
    for path in MODULES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"

"""The architecture, proved from the syntax trees: imports only go down, between the floors and inside the wings."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lupctl"

# Rooms from the ground up; a room may import those above it in this list and itself, and no other on its own line.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("lupctl.core.errors", "lupctl.core.choices"),
    # the ground
    ("lupctl.core.system.examples",),
    (
        "lupctl.core.system.strings", "lupctl.core.system.command_line", "lupctl.core.system.disk",
        "lupctl.core.system.documents", "lupctl.core.system.drawn_order", "lupctl.core.system.printing",
        "lupctl.core.system.telemetry", "lupctl.core.system.threads",
    ),
    ("lupctl.core.system.progress", "lupctl.core.workspace"),
    ("lupctl.core.system.jobs",),
    ("lupctl.core.system.fetch",),
    # the files in which stages meet
    ("lupctl.core.recipes", "lupctl.core.formats.record", "lupctl.core.formats.images"),
    ("lupctl.core.formats.pack", "lupctl.core.formats.scores"),
    ("lupctl.core.formats.features", "lupctl.core.formats.weights"),
    # two wings that do not see each other, each with floors of its own
    ("lupctl.core.training.hashing",),
    (
        "lupctl.core.data.catalog", "lupctl.core.data.drawing", "lupctl.core.training.losses",
        "lupctl.core.training.clusters", "lupctl.core.training.nets", "lupctl.core.training.views",
        "lupctl.core.training.engine",
    ),
    ("lupctl.core.data.sources", "lupctl.core.training.loading", "lupctl.core.training.methods"),
    ("lupctl.core.data.sources.layouts",),
    ("lupctl.core.data.sources.synthetic", "lupctl.core.data.sources.merged", "lupctl.core.data.sources.folders"),
    ("lupctl.core.data.sources.guess",),
    ("lupctl.core.data.sources.build",),
    ("lupctl.core.data.checking", "lupctl.core.data.packing", "lupctl.core.data.video"),
    # the third wing stands on both
    ("lupctl.core.ranking.metrics",),
    ("lupctl.core.ranking.reranking",),
    ("lupctl.core.ranking.clustering", "lupctl.core.ranking.retrieval", "lupctl.core.ranking.reports.model"),
    ("lupctl.core.ranking.reports.page", "lupctl.core.ranking.site"),
    ("lupctl.core.ranking.reports.build",),
    # what a user types
    ("lupctl.core.stages",),
    ("lupctl.core.resolve",),
    ("lupctl.core.flows",),
    ("lupctl.cli",),
    ("lupctl.__main__",),
)  # fmt: skip
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WINGS = ("lupctl.core.data", "lupctl.core.training")
# Nothing below the recipes' own floor but errors, names and files: a recipe is text and numbers.
RECIPES_MAY_IMPORT = ("lupctl.core.errors", "lupctl.core.choices", "lupctl.core.system")
# What starts a command, and what it may import before its body runs.
LIGHT = ("lupctl.cli", "lupctl.core.flows", "lupctl.core.resolve")
LIGHT_MAY_IMPORT = (
    *LIGHT, "lupctl.core.errors", "lupctl.core.choices", "lupctl.core.workspace", "lupctl.core.system.progress.lines",
    "lupctl.core.system.jobs.outer", "lupctl.core.system.command_line", "lupctl.core.system.examples",
    "lupctl.core.system.printing",
)  # fmt: skip
HEAVY = {
    "torch", "torchvision", "h5py", "cv2", "faiss", "numpy", "matplotlib", "jinja2", "pydantic", "safetensors", "onnx",
    "onnxruntime", "onnxscript", "openvino",
}  # fmt: skip
MOST_LINES = 300
MOST_FUNCTION_LINES = 80
MOST_FILES = 15
MOST_ENTRIES_OF_CORE = 12

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> str:
    """The smallest known room that holds a module; every stage is one of its own."""
    if is_in(module, "lupctl.core.stages"):
        return ".".join(module.split(".")[:4])
    rooms = [room for room in FLOOR_OF if is_in(module, room)]
    assert rooms, f"{module} is in no room: give it a floor in tests/test_floors.py"
    return max(rooms, key=len)


def floor_of(room: str) -> int:
    return FLOOR_OF["lupctl.core.stages"] if is_in(room, "lupctl.core.stages") else FLOOR_OF[room]


def wing_of(module: str) -> str | None:
    return next((wing for wing in WINGS if is_in(module, wing)), None)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree: ast.Module, *, top_level_only: bool) -> list[str]:
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            assert node.module is not None
            found += targets_of(node.module, [alias.name for alias in node.names])
    return found


def targets_of(module: str, names: list[str]) -> list[str]:
    """The modules that an import reaches: a package's modules where it names them, else the module itself."""
    folder = ROOT.joinpath(*module.split("."))
    inside = [name for name in names if (folder / f"{name}.py").is_file() or (folder / name).is_dir()]
    return [f"{module}.{name}" for name in inside] if inside else [module]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    module = module_name(path)
    room, wing = room_of(module), wing_of(module)
    for target in imports_of(parse(path), top_level_only=False):
        assert target.split(".")[0] != "click", f"{module} imports click; Typer's public names only"
        if not is_in(target, "lupctl"):
            continue
        below = room_of(target)
        if below == room:
            continue
        assert floor_of(below) < floor_of(room), (
            f"{module} (floor {floor_of(room)}) imports {target} ({floor_of(below)})"
        )
        if wing is not None:
            assert wing_of(target) in (wing, None), f"{module} imports {target}, which is in the other wing"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_commands_are_light_and_recipes_are_pure(path: Path) -> None:
    module, tree = module_name(path), parse(path)
    if any(is_in(module, room) for room in LIGHT):
        for target in imports_of(tree, top_level_only=True):
            assert target.split(".")[0] not in HEAVY, f"{module} imports {target} at module level"
            if is_in(target, "lupctl"):
                assert any(is_in(target, room) for room in LIGHT_MAY_IMPORT), (
                    f"{module} imports {target} at module level"
                )
    if room_of(module) == "lupctl.core.recipes":
        for target in imports_of(tree, top_level_only=False):
            if is_in(target, "lupctl") and room_of(target) != "lupctl.core.recipes":
                assert any(is_in(target, room) for room in RECIPES_MAY_IMPORT), f"{module} imports {target}"


def test_no_circles() -> None:
    """Also not inside a room, where floors say nothing."""
    graph = {
        module_name(path): [
            target for target in imports_of(parse(path), top_level_only=False) if is_in(target, "lupctl")
        ]
        for path in MODULES
    }
    state: dict[str, str] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"a circle of imports: {' -> '.join((*trail, module))}"
        if module in state:
            return
        state[module] = "open"
        for target in graph.get(module, []):
            visit(target, (*trail, module))
        state[module] = "done"

    for module in graph:
        visit(module, ())


def test_modules_and_functions_are_small() -> None:
    too_long = []
    for path in MODULES:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MOST_LINES:
            too_long.append(f"{module_name(path)}: {lines} lines")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > MOST_FUNCTION_LINES:
                    too_long.append(f"{module_name(path)}.{node.name}: {size} lines")
    assert not too_long, f"split them: {too_long}"


def test_rooms_are_clear() -> None:
    crowded = []
    for folder in sorted({path.parent for path in MODULES}):
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if len(files) > MOST_FILES:
            crowded.append(f"{folder.relative_to(ROOT)}: {len(files)} files")
    entries = [path.name for path in (PACKAGE / "core").iterdir() if not path.name.startswith("__")]
    assert not crowded
    assert len(entries) <= MOST_ENTRIES_OF_CORE, sorted(entries)


def test_init_files_are_empty() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            assert path.read_text(encoding="utf-8") == "", f"{path} is not empty"


def test_every_folder_is_a_package() -> None:
    for path in MODULES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_tests_do_not_import_tests() -> None:
    """What several tests need is in tests/references (slow code from definitions), tests/tools, or a fixture."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for target in imports_of(parse(path), top_level_only=False):
            name = target.rpartition(".")[2]
            assert not name.startswith("test_"), f"{path} imports {target}"
            assert name != "conftest", f"{path} imports {target}; fixtures are asked for by their names"

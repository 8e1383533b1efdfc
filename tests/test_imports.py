"""Who may know whom: the rooms of `docs/` as a table, held against every import statement."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quaver

ROOT = Path(quaver.__file__).parent
ROOMS = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"} - {
    "__init__",
    "__main__",  # the command, by another name
    "__pycache__",
    "bundled",
}
# What each room may import besides itself. A dotted name allows that module alone.
ALLOWED = {
    "core": set(),
    "precision": {"core"},
    "nn": {"precision", "core"},
    "quant": {"nn", "precision", "core"},
    "audio": {"core"},
    "checkpoints": {"precision", "core"},
    "codecs": {"nn", "core"},
    "families": {"nn", "codecs.layout", "checkpoints.names", "precision", "core"},
    "engine": {"nn", "precision", "core"},
    "text": {"core"},
    "quality": {"core"},
    "bench": {"audio.levels", "engine.threads", "precision", "core"},
    "train": {"families", "codecs", "checkpoints", "nn", "quality", "precision", "core"},
    "voicing": {"engine", "core"},
    "synthesizer": {"voicing", "engine", "audio", "text", "core"},
    "loading": {
        *("synthesizer", "engine", "families", "codecs", "checkpoints", "quant", "nn"),
        *("quality", "bench", "precision", "core"),
    },
    "quantizing": {
        *("loading", "engine", "families", "checkpoints", "quant", "text", "precision", "core"),
    },
    "comparing": {
        *("quantizing", "loading", "engine", "checkpoints", "nn", "quality", "bench", "audio"),
        *("text", "precision", "core"),
    },
    "server": {"synthesizer", "loading", "bench", "audio", "text", "core"},
    "web": set(),  # pages, which speak HTTP
    "cli": {
        "server",
        "loading",
        "quantizing",
        "comparing",
        "quality",
        "bench",
        "precision",
        "core",
        "audio",
        "text",
    },
}
# Single modules that may import more than their room.
ALLOWED_MODULES = {
    "core.types": {"audio.encode"},  # Audio.save, inside the method
    "cli.train": {"train"},
    "cli.bench": {"checkpoints.source"},  # others' code gets the folder
    # these two look at model folders without loading them
    "cli.models": {
        "checkpoints.source",
        "checkpoints.hub",
        "checkpoints.jsonfile",
        "families.orpheus",
    },
    "cli.doctor": {"checkpoints.source"},
    "cli.quantize": {"checkpoints.atomic"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name != "__init__":
            yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module of ours without the leading `quaver.`), inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("quaver.")]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            if str(node.module).split(".")[0] != "quaver":
                continue
            found = ROOT.joinpath(*str(node.module).split(".")[1:])
            names = [
                f"{node.module}.{alias.name}"
                if node.module == "quaver" or (found / f"{alias.name}.py").is_file()
                else str(node.module)
                for alias in node.names
            ]
        for name in names:
            module = name.removeprefix("quaver.")
            if module.split(".")[0] in ROOMS:  # else a name of the package itself
                yield node.lineno, module


def is_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_every_room_has_its_row():
    assert set(ALLOWED) >= ROOMS


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_it_may(room):
    wrong = []
    for module, path in modules():
        if not is_in(module, {room}):
            continue
        allowed = ALLOWED[room] | {room} | ALLOWED_MODULES.get(module, set())
        if room == "families":  # never another family
            allowed = ALLOWED[room] | {".".join(module.split(".")[:2])}
        for line, imported in imports(path):
            if not is_in(imported, allowed):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert not wrong


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_uses_what_it_may_import(room):
    """A grant that nothing uses would let an arrow in unseen."""
    used = {
        imported
        for module, path in modules()
        if is_in(module, {room})
        for _, imported in imports(path)
        if not is_in(imported, ALLOWED_MODULES.get(module, set()))
    }
    unused = {place for place in ALLOWED[room] if not any(is_in(each, {place}) for each in used)}
    assert not unused, f"take these from the row of {room}"


@pytest.mark.parametrize("module", sorted(ALLOWED_MODULES))
def test_a_module_uses_what_it_may_import(module):
    paths = dict(modules())
    assert module in paths, "there is no such module: take its row away"
    used = {imported for _, imported in imports(paths[module])}
    places = ALLOWED_MODULES[module]
    unused = {place for place in places if not any(is_in(each, {place}) for each in used)}
    assert not unused, f"take these from the row of {module}"


def test_nobody_imports_the_trainer_but_its_verb():
    who = {
        module
        for module, path in modules()
        for _, imported in imports(path)
        if is_in(imported, {"train"}) and not is_in(module, {"train"})
    }
    assert who <= {"cli.train"}


@pytest.mark.parametrize(
    "module",
    ["quaver", "quaver.text.segments", "quaver.core.random", "quaver.precision", "quaver.cli.main"],
)
def test_importing_is_light(module):
    code = (
        f"import sys, {module}; heavy = {{'torch', 'numpy', 'av'}} & set(sys.modules);"
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_has_its_public_names_and_no_others():
    assert all(hasattr(quaver, name) for name in quaver.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        quaver.sing  # noqa: B018


def test_load_stays_a_function():
    code = "import quaver; quaver.load; import quaver.loading; assert callable(quaver.load)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

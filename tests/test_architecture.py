"""The rules of docs/architecture.md, enforced on the source; each rule is also shown to catch a breach."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("render", "finetune", "decode", "eval")
LONGEST = 400
FORBIDDEN = re.compile(r"(?i)(^|_)(utils?|helpers?|common|misc|base_?class)(_|$)")
PICKLING = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

Sources = dict[str, str]
"""Module name -> its source."""


@cache
def sources() -> Sources:
    found = {}
    for folder in ("pixeltraj", *STAGES):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "pixeltraj" else ("pixeltraj", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


# The rules: each yields its breaches


def imports(module: str, every: Sources) -> Iterator[str]:
    """Project modules that the module imports anywhere, but for type checking only."""
    tree = ast.parse(every[module])
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in every)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in whole if name in every)
            if node.module in every and not all(name in every for name in whole):
                yield node.module


def stage(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in (*STAGES, "cli") else None


def wrong_imports(every: Sources) -> Iterator[str]:
    """Stages import shared words only; shared words import no stage; only the command line imports stages."""
    for module in every:
        mine = stage(module)
        for imported in imports(module, every):
            theirs = stage(imported)
            started_by_hand = module.endswith(".__main__") and imported == "pixeltraj.cli"
            if mine != "cli" and theirs not in (None, mine) and not started_by_hand:
                yield f"{module} imports {imported}"


def circles(every: Sources) -> Iterator[str]:
    graph = {module: set(imports(module, every)) - {module} for module in every}
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> Iterator[str]:
        if module in path:
            yield " -> ".join([*path[path.index(module) :], module])
        elif module not in done:
            for imported in sorted(graph[module]):
                yield from visit(imported, [*path, module])
            done.add(module)

    for module in sorted(graph):
        yield from visit(module, [])


def pickles(every: Sources) -> Iterator[str]:
    for module, source in every.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                yield from (f"{module} imports {name}" for name in names if name.split(".")[0] in PICKLING)
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if call == "torch.load" and keywords.get("weights_only") != "True":
                    yield f"{module}: torch.load without weights_only=True"
                if keywords.get("allow_pickle", "False") != "False":
                    yield f"{module}: {call} with allow_pickle"


def bad_names(every: Sources) -> Iterator[str]:
    return (module for module in every if any(FORBIDDEN.search(part) for part in module.split(".")))


def too_long(every: Sources) -> Iterator[str]:
    return (f"{name}: {source.count(chr(10))} lines" for name, source in every.items() if source.count("\n") > LONGEST)


RULES = (wrong_imports, circles, pickles, bad_names, too_long)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(rule) -> None:  # type: ignore[no-untyped-def]
    assert len(sources()) > 20
    assert list(rule(sources())) == []


def test_tests_and_benchmarks_are_short_and_well_named_too() -> None:
    files = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    every = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in files}
    assert [*too_long(every), *bad_names(every)] == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (wrong_imports, "pixeltraj.decode.new", "from pixeltraj.render.render import render"),
        (wrong_imports, "pixeltraj.decode.new", "def late():\n    import pixeltraj.eval"),
        (wrong_imports, "pixeltraj.new", "from pixeltraj.render import renderer"),
        (wrong_imports, "pixeltraj.new", "from pixeltraj import cli"),
        (circles, "pixeltraj.errors", "def late():\n    from pixeltraj.store import Store"),
        (pickles, "pixeltraj.new", "import pickle"),
        (pickles, "pixeltraj.new", "from joblib import load"),
        (pickles, "pixeltraj.new", "torch.load(path)"),
        (pickles, "pixeltraj.new", "torch.load(path, weights_only=False)"),
        (pickles, "pixeltraj.new", "np.load(path, allow_pickle=True)"),
        (bad_names, "pixeltraj.render.image_utils", ""),
        (bad_names, "pixeltraj.helpers.new", ""),
        (too_long, "pixeltraj.new", "\n" * (LONGEST + 1)),
    ],
)
def test_a_breach_is_noticed(rule, name: str, source: str) -> None:  # type: ignore[no-untyped-def]
    assert list(rule(sources() | {name: source}))


# docs/architecture.md and pyproject.toml


def test_the_picture_of_the_house_names_every_file_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text.split("```")[1]
    folder, named = "", set()
    for line in tree.strip().splitlines():
        if line[0] != " ":
            folder = line.split()[0]
        else:
            named |= {folder + name for name in re.findall(r"[\w/]+\.py\b", line)}
    there = {
        str(path.relative_to(ROOT))
        for top in ("pixeltraj", *STAGES)
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == there


def test_every_package_is_installed() -> None:
    packages = {module for module, path in _packages()}
    text = (ROOT / "pyproject.toml").read_text()
    assert {name for name in packages if f'"{name}",' not in text} == set()


def _packages() -> Iterator[tuple[str, Path]]:
    for top in ("pixeltraj", *STAGES):
        for path in (ROOT / top).rglob("__init__.py"):
            parts = path.parent.relative_to(ROOT).parts
            yield ".".join(parts if top == "pixeltraj" else ("pixeltraj", *parts)), path

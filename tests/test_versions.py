"""Which versions of other people's packages the course runs with; `.ci/versions.py` really installs and tries them."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
HUB = [Requirement(text) for text in PROJECT["optional-dependencies"]["hub"]]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text("utf-8"), re.M))


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_package_asks_for_lower_bounds_only() -> None:
    assert all([part.operator for part in needed.specifier] == [">="] for needed in NEEDED + HUB)


@pytest.mark.parametrize("needed", NEEDED + HUB, ids=lambda needed: needed.name)
def test_what_is_pinned_and_what_is_installed_are_within_the_bounds(needed: Requirement) -> None:
    assert needed.specifier.contains(PINS[needed.name])
    try:
        assert needed.specifier.contains(importlib.metadata.version(needed.name))
    except importlib.metadata.PackageNotFoundError:
        assert needed in HUB


def test_the_oldest_set_is_the_lower_bounds_themselves(versions: ModuleType) -> None:
    oldest = [Requirement(text) for text in versions.wanted("oldest")]
    assert [needed.name for needed in oldest] == [needed.name for needed in NEEDED + HUB]
    for old, needed in zip(oldest, NEEDED + HUB, strict=True):
        (bound,) = needed.specifier
        assert str(old.specifier) == f"=={bound.version}" and needed.specifier.contains(bound.version)
    assert versions.wanted("newest") == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["hub"]]


@pytest.mark.promise(
    "Versions",
    "The first cell of a notebook installs one package and none that it depends on: Colab's torch and numpy stay.",
)
def test_the_first_cell_of_every_notebook_installs_the_course_alone(versions: ModuleType) -> None:
    notebooks = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    assert len(notebooks) > 50
    assert all(versions.install_options(path) == ["install", "--quiet", "--no-deps"] for path in notebooks)


@pytest.mark.promise(
    "Versions", "The package imports only what it asks for, so nothing is missing where its dependencies are there."
)
def test_every_foreign_import_is_asked_for() -> None:
    at_once, later = set(), set()
    for path in (ROOT / "llmcourse").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            (at_once if node in tree.body else later).update(name.partition(".")[0] for name in names)
    ours = {*sys.stdlib_module_names, "llmcourse"}
    needed = {requirement.name for requirement in NEEDED}
    assert at_once - ours <= needed | {"cycler"}  # a part of matplotlib that has its own name
    assert later - ours <= needed | {requirement.name for requirement in HUB} | {"IPython"}  # only inside a notebook

"""Try the course with the oldest packages that pyproject.toml allows, or with the newest there are.

    python .ci/versions.py oldest     each lower bound of pyproject.toml, exactly
    python .ci/versions.py newest     whatever the package registry has today

A fresh environment, outside the repository and removed afterwards, plays Colab: it has its own torch and numpy. The
install line of the notebooks must leave all of it as it was; then the unit tests and three lessons run in it.
Run it with the oldest Python that pyproject.toml allows: old packages have no builds for newer ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LESSONS = ("day09_*", "day18_*", "day23_*")
# What needs the book's own tools (Sphinx, nbformat, a browser) is no business of the package.
BOOK = ("lessons", "site", "notebooks", "editions", "deck", "comfort", "benchmarks", "versions")
LESSON = """
import json, sys
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    tags = cell["metadata"].get("tags", [])
    if cell["cell_type"] == "code" and "setup" not in tags:
        try:
            exec("".join(cell["source"]), names)
        except Exception:
            if "raises-exception" not in tags:
                raise
"""


def wanted(which: str) -> list[str]:
    """What to install: the dependencies and the extra `hub` of pyproject.toml, each at its bound or without one."""
    bounds = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["hub"]]
    return [bound.replace(">=", "==") if which == "oldest" else bound for bound in bounds]


def install_options(notebook: Path) -> list[str]:
    """How the first cell of a notebook calls pip: ["install", "--quiet", "--no-deps"]."""
    source = "".join(json.loads(notebook.read_text("utf-8"))["cells"][0]["source"])
    (command,) = re.findall(r'%pip (install [^"]*)"llmcourse @ ', source)
    return command.split()


def run(*command: str | Path, **options: object) -> str:
    """Run a command and return what it printed; the first that fails ends everything."""
    done = subprocess.run([str(part) for part in command], text=True, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{done.stdout}\nThis failed: {' '.join(map(str, command))}")
    return str(done.stdout)


def main(which: str = "oldest") -> None:
    if which not in ("oldest", "newest"):
        sys.exit(f"There are two sets, oldest and newest, and not {which!r}.")
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        run(sys.executable, "-m", "venv", python.parents[1])
        print(f"Installing the {which} packages: some minutes ...", flush=True)
        tests = ["pytest", "pytest-xdist", "hypothesis"]
        run(python, "-m", "pip", "install", "--quiet", *wanted(which), *tests)
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", ROOT / "requirements-data.txt")
        before = run(python, "-m", "pip", "freeze").splitlines()
        names = tuple(re.match(r"[\w-]+", bound)[0] for bound in PROJECT["dependencies"])  # type: ignore[index]
        print(*(line for line in before if line.startswith(names)), flush=True)

        run(python, "-m", "pip", *install_options(ROOT / "notebooks" / "index.ipynb"), ROOT)
        new = set(run(python, "-m", "pip", "freeze").splitlines()) ^ set(before)
        if [line.split(" @ ")[0] for line in new] != ["llmcourse"]:
            sys.exit(f"The install line of the notebooks changed more than llmcourse: {sorted(new)}")
        run(python, "-m", "pip", "check")  # all that it asks for is there
        print("The install line of the notebooks added llmcourse and changed nothing else.", flush=True)

        thread = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "LLMCOURSE_PROGRESS": os.devnull}
        ignored = [f"--ignore=tests/test_{name}.py" for name in BOOK]
        command = [python, "-m", "pytest", "tests", "-n", "2", "-p", "no:cacheprovider", *ignored]
        if subprocess.run(command, cwd=ROOT, env=os.environ | thread).returncode:
            sys.exit(f"The unit tests fail with the {which} packages.")
        for lesson in sorted(path for name in LESSONS for path in ROOT.glob(f"notebooks/week*/{name}.ipynb")):
            run(python, "-c", LESSON, lesson, cwd=folder, env=os.environ | thread)
            print(f"{lesson.stem} runs.", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

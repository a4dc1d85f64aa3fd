"""The measurements against others: that they measure, and that a ratio which fell is noticed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import nanogpt
import run

ROWS = [
    {"what": "train (1.88 at worst)", "ours": 10.0, "peer": 60.0, "peer_name": "nanoGPT", "ratio": 6.0, "unit": "s"},
    {"what": "encode", "ours": 4.1, "peer": 2.0, "peer_name": "tokenizers", "ratio": 2.05, "unit": "MB/s"},
]


def test_ratios_are_read_back_from_the_table():
    assert run.ratios(run.table(ROWS)) == {("train", "nanoGPT"): 6.0, ("encode", "tokenizers"): 2.05}


@pytest.mark.parametrize(("ratio", "noticed"), [(6.5, False), (5.0, False), (4.7, True)])
def test_a_ratio_that_fell_by_a_fifth_is_noticed(ratio: float, noticed: bool):
    now = [{**ROWS[0], "what": "train (1.87 at worst)", "ratio": ratio}, ROWS[1]]
    found = run.regressions(run.table(ROWS), run.table(now))
    assert found == ([f"train, against nanoGPT: 6.00 before, {ratio:.2f} now"] if noticed else [])


def test_a_new_row_is_no_regression():
    assert run.regressions("", run.table(ROWS)) == []


def test_the_stored_tables_can_be_read():
    folder = Path(__file__).parent / "benchmarks"
    for path in (folder / "tables").glob("*.md"):
        assert len(run.ratios(path.read_text("utf-8"))) == path.read_text("utf-8").count("\n| ") - 1, path.name
    assert all(path.read_text("utf-8") in (folder / "README.md").read_text("utf-8") for path in folder.glob("tables/*"))


def test_a_folder_without_the_peer_is_told(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="give a checkout of nanoGPT"):
        nanogpt.load_module(tmp_path)
    (tmp_path / "model.py").write_text("GPT = 124")
    assert nanogpt.load_module(tmp_path).GPT == 124

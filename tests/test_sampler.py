"""Sampling: the same text with and without a cache, filters that keep what they promise, errors for people."""

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmcourse import sampler
from llmcourse.errors import CourseError
from llmcourse.model import GPT, GPTConfig
from llmcourse.sampler import (
    apply_min_p,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    beam_search,
    check_logits,
    decoding,
    draw,
    generate,
    generate_text,
    stream,
)
from llmcourse.tokenizer import BPETokenizer, CharTokenizer

V = 11
VARIANTS = [
    {},
    {"position": "rope", "qk_norm": True, "norm": "rmsnorm", "activation": "relu2", "bias": False},
    {"position": "sinusoidal", "norm_position": "post", "activation": "swiglu"},
]


@lru_cache
@torch.no_grad()
def tiny(block_size=8, variant=0, vocab_size=V, seed=0):
    """An untrained model with opinions: large weights, so that its choices differ from token to token."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocab_size, block_size, 2, 2, 8, tie_weights=False, **VARIANTS[variant])).eval()
    for p in model.parameters():
        if p.ndim == 2:
            p.normal_(std=0.6)
    return model


def prompt(B=1, T=3, seed=0, vocab_size=V):
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def assert_one_sentence(error):
    text = str(error.value)
    assert type(error.value) is CourseError
    assert text.endswith(".") and "\n" not in text and 15 < len(text) < 240, text


@torch.no_grad()
def argmax_loop(model, idx, n):
    """Greedy decoding as one would write it on a blackboard."""
    for _ in range(n):
        logits = model(idx[:, -model.config.block_size :])[:, -1]
        idx = torch.cat((idx, logits.argmax(-1, keepdim=True)), dim=1)
    return idx


@torch.no_grad()
def refill_loop(model, idx, n):
    """Greedy decoding with what "refill" promises: the text the model sees shrinks to half a window when it is full."""
    window, start = model.config.block_size, 0
    for _ in range(n):
        if idx.shape[1] - start > window:
            start = idx.shape[1] - max(1, window // 2)
        idx = torch.cat((idx, model(idx[:, start:])[:, -1].argmax(-1, keepdim=True)), dim=1)
    return idx


# The loop and its cache ------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2), st.sampled_from([1, 2, 3, 8]), st.integers(1, 3), st.integers(1, 20), st.booleans())
def test_greedy_decoding_equals_an_argmax_loop_for_any_prompt_and_window(variant, block_size, B, T, use_cache):
    model, idx = tiny(block_size, variant), prompt(B, T, seed=T)
    torch.testing.assert_close(
        generate(model, idx, 12, temperature=0, use_cache=use_cache), argmax_loop(model, idx, 12), atol=0, rtol=0
    )


@settings(max_examples=60)
@given(
    st.integers(0, 2),
    st.sampled_from([1, 2, 3, 8, 16]),
    st.integers(1, 3),
    st.integers(1, 20),
    st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.5, 1.0, 2.0]),
            "top_k": st.sampled_from([None, 3]),
            "top_p": st.sampled_from([None, 0.8]),
            "min_p": st.sampled_from([None, 0.1]),
            "seed": st.integers(0, 2**64 - 1),
        }
    ),
)
@pytest.mark.promise(
    "Equality",
    "With the key–value cache sampling gives the tokens that it gives without, in the context window and beyond it.",
)
def test_the_cache_changes_no_token_within_and_past_the_window(variant, block_size, B, T, options):
    model, idx = tiny(block_size, variant), prompt(B, T, seed=T)
    cached = generate(model, idx, 20, **options)
    assert cached.shape == (B, T + 20) and cached.dtype == torch.int64
    assert (cached[:, :T] == idx).all() and set(cached.flatten().tolist()) <= set(range(V))
    torch.testing.assert_close(cached, generate(model, idx, 20, use_cache=False, **options), atol=0, rtol=0)


@settings(max_examples=60)
@given(st.integers(0, 2), st.sampled_from([1, 2, 3, 5, 8]), st.integers(1, 25), st.integers(0, 20))
def test_refill_does_what_its_documentation_says_for_any_prompt(variant, block_size, T, n):
    model, idx = tiny(block_size, variant), prompt(2, T, seed=n)
    refilled = generate(model, idx, n, temperature=0, past_window="refill")
    torch.testing.assert_close(refilled, refill_loop(model, idx, n), atol=0, rtol=0)
    # Up to the window and the one token that the full window predicts, it is exact.
    inside = max(T, block_size + 1) if block_size >= T else T
    torch.testing.assert_close(refilled[:, :inside], argmax_loop(model, idx, n)[:, :inside], atol=0, rtol=0)


def test_refill_is_an_approximation_beyond_the_window_and_saves_work():
    differing, calls = 0, []
    for seed in range(20):
        model, idx = tiny(16, variant=1), prompt(1, 3, seed)
        handle = model.transformer["wte"].register_forward_hook(lambda _, args, __: calls.append(args[0].shape[1]))
        refilled = generate(model, idx, 40, temperature=0, past_window="refill")
        handle.remove()
        differing += not torch.equal(refilled, generate(model, idx, 40, temperature=0))
    assert differing > 0
    # A prompt, single tokens, and a refill of 8 tokens for every 9 beyond the window: 3 tokens become 43.
    assert calls[:14] == [3] + [1] * 13 and calls.count(8) == 20 * 3 and len(calls) == 20 * 40


def test_inside_the_window_each_step_costs_one_token():
    model, calls = tiny(16), []
    handle = model.transformer["wte"].register_forward_hook(lambda _, args, __: calls.append(args[0].shape[1]))
    generate(model, prompt(1, 5), 16)
    handle.remove()
    assert calls == [5] + [1] * 11 + [16] * 4


def test_rows_of_a_batch_do_not_see_each_other():
    model, idx = tiny(), prompt(5, 4)
    together = generate(model, idx, 12, temperature=0)
    alone = torch.cat([generate(model, row[None], 12, temperature=0) for row in idx])
    torch.testing.assert_close(together, alone, atol=0, rtol=0)


def test_generating_needs_nothing_and_changes_nothing():
    model, idx = tiny(), prompt(2, 4)
    before, weights = idx.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    assert torch.equal(generate(model, idx, 0), idx)
    assert list(stream(model, idx, 0)) == []
    state = torch.get_rng_state()
    generate(model, idx, 5, seed=3)
    generate(model, idx, 5)
    assert torch.equal(torch.get_rng_state(), state)  # a training run beside it is not disturbed
    assert torch.equal(idx, before)
    torch.testing.assert_close(model.state_dict(), weights, atol=0, rtol=0)


def test_what_was_generated_can_be_trained_on():
    model = GPT(GPTConfig(V, 8, 1, 1, 8))
    for text in (generate(model, prompt(2, 3), 5), beam_search(model, prompt(1, 3), 5)[0]):
        model.loss(text[:, :-1], text[:, 1:]).backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_number_types_work(dtype):
    model = GPT(GPTConfig(V, 8, 1, 1, 8)).to(dtype)
    assert generate(model, prompt(2, 3), 10, top_p=0.9, seed=0).shape == (2, 13)


def test_lists_arrays_and_numpy_numbers_are_understood():
    model, idx = tiny(), prompt(2, 4)
    expected = generate(model, idx, 6, temperature=0.5, top_k=3, seed=5)
    for same in (idx.tolist(), idx.numpy(), idx.to(torch.int32), idx.numpy().astype(np.uint16)):
        assert torch.equal(generate(model, same, 6, temperature=0.5, top_k=3, seed=5), expected)
    numbers = {"temperature": np.float32(0.5), "top_k": np.int64(3), "seed": np.int64(5)}
    assert torch.equal(generate(model, idx, np.int64(6), **numbers), expected)


# Filters --------------------------------------------------------------------------------------------------------

ROWS = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.lists(st.floats(-12, 12, width=32), min_size=n, max_size=n), min_size=1, max_size=4)
)
SHARE = st.floats(0.01, 1.0)
FILTERS = {
    apply_temperature: st.floats(0.05, 50),
    apply_top_k: st.integers(1, 12),
    apply_top_p: SHARE,
    apply_min_p: SHARE,
}


@given(st.sampled_from(list(FILTERS)), ROWS, st.data())
def test_filters_leave_the_callers_logits_alone_and_treat_each_row_alone(apply, rows, data):
    strength, logits = data.draw(FILTERS[apply]), torch.tensor(rows)
    before = logits.clone()
    kept = apply(logits, strength)
    assert torch.equal(logits, before)
    for row, alone in zip(kept, logits, strict=True):
        torch.testing.assert_close(row, apply(alone[None], strength)[0], atol=0, rtol=0)
        torch.testing.assert_close(row, apply(alone, strength), atol=0, rtol=0)  # any leading shape
    if apply is not apply_temperature:
        assert torch.isfinite(kept).any(-1).all()  # never nothing
        assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])  # what is kept is untouched
        assert torch.equal(kept.argmax(-1), logits.argmax(-1))


@given(ROWS, st.integers(1, 12))
def test_top_k_keeps_the_k_highest_and_their_ties(rows, k):
    for kept, row in zip(apply_top_k(torch.tensor(rows), k), rows, strict=True):
        lowest = sorted(row, reverse=True)[min(k, len(row)) - 1]
        assert [math.isfinite(x) for x in kept.tolist()] == [x >= lowest for x in row]


@given(ROWS, SHARE)
def test_top_p_keeps_the_smallest_set_that_reaches_p(rows, p):
    for kept, row in zip(apply_top_p(torch.tensor(rows), p), rows, strict=True):
        whole = math.fsum(math.exp(x) for x in row)
        kept = {i for i, x in enumerate(kept.tolist()) if math.isfinite(x)}
        expected, total, sums = set(), 0.0, []
        for i in sorted(range(len(row)), key=lambda i: -row[i]):  # the slow way: take the next likeliest until enough
            if total >= p:
                break
            expected.add(i)
            total += math.exp(row[i]) / whole
            sums.append(total)
        assume(p == 1 or all(abs(s - p) > 1e-5 for s in sums))  # rounding may decide such a case
        if p == 1:
            expected = set(range(len(row)))
        assert len(kept) == len(expected)
        assert sorted(row[i] for i in kept) == sorted(row[i] for i in expected)  # of ties, any


@given(ROWS, SHARE)
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(rows, p):
    for kept, row in zip(apply_min_p(torch.tensor(rows), p), rows, strict=True):
        for x, out in zip(row, kept.tolist(), strict=True):
            ratio = math.exp(x - max(row))
            assume(abs(ratio - p) > 1e-5 * p or x == max(row))
            assert math.isfinite(out) == (ratio >= p)


def test_known_nuclei():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.25, 0.125, 0.5]]).log()
    kept = [apply_top_p(logits, p).isfinite().int().tolist() for p in (0.01, 0.5, 0.6, 0.75, 0.8, 1.0)]
    assert [k[0] for k in kept[:4]] == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert [k[1] for k in kept[:4]] == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1]]
    assert sum(kept[4][0]) == 3 and kept[5] == [[1, 1, 1, 1]] * 2
    long_tail = torch.cat((torch.tensor([30.0]), torch.zeros(50_000)))
    assert apply_top_p(long_tail, 1.0).isfinite().all()  # p = 1 is off, whatever the rounding


@given(ROWS, st.floats(0.1, 10), st.integers(1, 9))
def test_the_order_of_temperature_and_top_k_does_not_matter(rows, temperature, k):
    logits = torch.tensor(rows)
    assume((logits.sort().values.diff() > 1e-3).all())  # else the division could make a tie
    one = apply_top_k(apply_temperature(logits, temperature), min(k, logits.shape[1]))
    other = apply_temperature(apply_top_k(logits, min(k, logits.shape[1])), temperature)
    torch.testing.assert_close(one, other)


def test_the_order_of_temperature_and_top_p_does_matter():
    logits = torch.tensor([0.6, 0.3, 0.1]).log()
    first = apply_top_p(apply_temperature(logits, 3.0), 0.6).isfinite().sum()
    last = apply_temperature(apply_top_p(logits, 0.6), 3.0).isfinite().sum()
    assert (first, last) == (2, 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 2.0, "top_k": 4},
        {"top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.2},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.1},
        {"temperature": 1e6},
    ],
)
def test_tokens_are_drawn_as_often_as_the_filtered_probabilities_say(options):
    model, n = tiny(), 20_000
    with torch.no_grad():  # the prompt, of a hundred, after which the model is least sure
        idx = min((prompt(1, 4, seed) for seed in range(100)), key=lambda idx: model(idx)[0, -1].softmax(-1).max())
        logits = model(idx)[0, -1].double() / options.get("temperature", 1.0)
    for name, apply in (("top_k", apply_top_k), ("top_p", apply_top_p), ("min_p", apply_min_p)):
        if name in options:  # in the documented order
            logits = apply(logits, options[name])
    expected = n * logits.softmax(-1)
    drawn = generate(model, idx.expand(n, -1), 1, seed=1, **options)[:, -1].bincount(minlength=V)
    assert (drawn[expected == 0] == 0).all() and (expected > 0).sum() > 1
    chi_square = ((drawn - expected).square() / expected)[expected > 5].sum().item()
    assert chi_square < 35  # 10 degrees of freedom or fewer: less than once in 8,000 seeds


def test_filters_act_in_the_documented_order(monkeypatch):
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1] + [0.0] * (V - 4)]).clamp(min=1e-12).log()
    monkeypatch.setattr(sampler.Decoder, "step", lambda self: logits.expand(500, -1))

    def drawn(**options):
        return set(generate(tiny(), prompt(500, 1), 1, seed=0, **options)[:, 1].tolist())

    assert drawn(top_p=0.5) == drawn(top_k=2) == {0, 1}
    assert drawn(top_k=2, top_p=0.5) == {0}  # of the two that top-k leaves, the first has 4/7
    assert drawn(temperature=0.5, top_p=0.5) == {0}  # made sharper first, it has 16/30
    assert drawn(top_p=0.8) == {0, 1, 2} and drawn(top_p=0.8, min_p=0.6) == {0, 1}


def test_draw_gives_the_tokens_that_multinomial_gives():
    probs = (torch.randn(50, 300) * 3).softmax(-1)
    probs[:, ::3] = 0
    for seed in range(20):
        ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
        assert torch.equal(draw(probs, ours), torch.multinomial(probs, 1, generator=theirs))
        assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-300, 1e-12, 1e-6, 1e-5])
def test_towards_temperature_zero_sampling_becomes_greedy(temperature):
    model, idx = tiny(), prompt(4, 3)
    assert torch.equal(generate(model, idx, 15, temperature=temperature, seed=1), argmax_loop(model, idx, 15))


def test_the_tightest_filters_are_greedy_too():
    model, idx = tiny(), prompt(4, 3)
    expected = argmax_loop(model, idx, 12)
    for tight in ({"top_k": 1}, {"top_p": 1e-9}, {"top_p": 1e-300}, {"min_p": 1.0}, {"top_p": 1e-9, "min_p": 1e-300}):
        assert torch.equal(generate(model, idx, 12, **tight), expected)


def test_the_widest_filters_change_nothing():
    model, idx = tiny(), prompt(4, 3)
    expected = generate(model, idx, 12, seed=2)
    for wide in ({"top_k": V}, {"top_k": 10**9}, {"top_p": 1.0}, {"min_p": 1e-30}):
        assert torch.equal(generate(model, idx, 12, seed=2, **wide), expected)


# Seeds ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_text_and_none_a_fresh_one():
    model, idx = tiny(), prompt(1, 3)
    texts = [tuple(generate(model, idx, 40, temperature=2.0, seed=seed)[0].tolist()) for seed in (1, 1, 2, None, None)]
    assert texts[0] == texts[1] and len(set(texts)) == 4


def test_a_generator_continues_where_it_stopped():
    model, idx = tiny(32), prompt(2, 3)
    whole = generate(model, idx, 20, temperature=2.0, seed=7)
    generator = torch.Generator().manual_seed(7)
    half = generate(model, idx, 10, temperature=2.0, seed=generator)
    assert torch.equal(generate(model, half, 10, temperature=2.0, seed=generator), whole)


def test_a_generator_of_another_device_is_refused():
    class Elsewhere(torch.Generator):
        device = torch.device("cuda")

    with pytest.raises(CourseError, match=r"torch\.Generator\('cpu'\)") as error:
        generate(tiny(), prompt(), 3, seed=Elsewhere())
    assert_one_sentence(error)


# Stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_each_row_ends_at_its_own_stop_token(seed):
    model, idx, stop, n = tiny(), prompt(3, 3), 4, 60
    free = generate(model, idx, n, temperature=1.5, seed=seed)
    stopped = generate(model, idx, n, temperature=1.5, seed=seed, stop=stop)
    ends = []
    for row, whole in zip(stopped.tolist(), free.tolist(), strict=True):
        new = whole[3:]
        ends.append(new.index(stop) + 1 if stop in new else n)
        assert row[: 3 + ends[-1]] == whole[: 3 + ends[-1]]
        assert set(row[3 + ends[-1] :]) <= {stop}
    assert stopped.shape[1] == 3 + max(ends)


def test_a_stop_token_in_the_prompt_stops_nothing():
    assert generate(tiny(), torch.tensor([[4, 4]]), 5, stop=4, seed=3).shape[1] > 3


CHARS = CharTokenizer("\nabcdefghi ")


@given(st.text(alphabet="abcdefghi", min_size=1, max_size=2), st.integers(0, 50))
@settings(max_examples=40)
def test_text_ends_before_the_first_stop_string(stop, seed):
    options = {"temperature": 1.5, "seed": seed}
    whole = generate_text(tiny(), CHARS, "abc", 40, **options)
    assert whole.startswith("abc") and len(whole) == 43
    assert generate_text(tiny(), CHARS, "abc", 40, stop=stop, **options) == "abc" + whole[3:].partition(stop)[0]


def test_a_stop_in_the_prompt_stops_nothing():
    text = generate_text(tiny(), CHARS, "abcabc", 10, stop="abcabc", seed=0)
    assert text.startswith("abcabc") and len(text) > 6


@pytest.mark.parametrize("stop", ["é", "\n\n", "→", "ß→", "end", "x"])
def test_a_stop_string_is_found_where_it_spans_tokens_and_bytes(stop, monkeypatch):
    text = "so été, naïve\nß→ and\n\nan end→."
    for tokenizer in (BPETokenizer([], {}), BPETokenizer.train(text * 3, 270), CharTokenizer.from_text(text + "x")):
        ids, seen = tokenizer.encode(text), []

        def script(model, idx, n, ids=ids, seen=seen, **options):
            for token in ids:
                seen.append(token)
                yield torch.tensor([[token]])

        monkeypatch.setattr(sampler, "stream", script)
        before = text.partition(stop)[0]
        assert generate_text(tiny(), tokenizer, "so", 99, stop=stop) == "so" + before
        if stop in text:  # not one token too many
            assert stop in tokenizer.decode(seen) and stop not in tokenizer.decode(seen[:-1])


def test_generate_text_equals_generate_and_starts_from_a_line_break():
    text = generate_text(tiny(), CHARS, max_new_tokens=20, seed=4)
    assert text == CHARS.decode(generate(tiny(), torch.tensor([[0]]), 20, seed=4)[0].tolist())
    assert text[0] == "\n"


# Beam search ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def best_by_enumeration(model, idx, n, length_penalty, stop):
    """Score all continuations, the ones that end early too; returns the best text and its log-probability."""
    finished, open_ = [], [((), 0.0)]
    for length in range(1, n + 1):
        longer = []
        for tokens, score in open_:
            text = torch.cat((idx[0], torch.tensor(tokens, dtype=torch.int64)))[-model.config.block_size :]
            for token, nats in enumerate(model(text[None])[0, -1].log_softmax(-1).tolist()):
                ended = token == stop or length == n
                (finished if ended else longer).append(((*tokens, token), score + nats))
        open_ = longer
    best = max(finished, key=lambda item: item[1] / len(item[0]) ** length_penalty)
    return idx[0].tolist() + list(best[0]), best[1]


@pytest.mark.parametrize("stop", [None, 0, 3])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_what_enumeration_finds(stop, length_penalty):
    for seed, block_size in itertools.product(range(4), (3, 8)):  # the window ends within the search, or does not
        model, idx = tiny(block_size, seed % 3, 4, seed), prompt(1, 2, seed, 4)
        text, score = beam_search(model, idx, 4, 4**4, length_penalty, stop)
        expected, nats = best_by_enumeration(model, idx, 4, length_penalty, stop)
        assert text.tolist() == [expected]
        assert score == pytest.approx(nats, abs=1e-4)


@torch.no_grad()
def beams_by_lists(model, idx, n, beam_size, length_penalty, stop):
    """Beam search in plain Python: sort all continuations of all beams; a beam that ends gives its place away."""
    beams, finished = [((), 0.0)], []
    for length in range(1, n + 1):
        candidates = []
        for tokens, score in beams:
            text = idx[0].tolist() + list(tokens)
            nats = model(torch.tensor([text[-model.config.block_size :]]))[0, -1].log_softmax(-1).tolist()
            candidates += [((*tokens, token), score + x) for token, x in enumerate(nats)]
        candidates = sorted(candidates, key=lambda item: -item[1])[: beam_size - len(finished)]
        finished += [item for item in candidates if item[0][-1] == stop or length == n]
        beams = [item for item in candidates if item[0][-1] != stop]
    best = max(finished, key=lambda item: item[1] / len(item[0]) ** length_penalty)
    return idx[0].tolist() + list(best[0]), best[1]


@pytest.mark.parametrize("stop", [None, 1, 4, 9])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5, 20])
def test_beam_search_equals_one_with_plain_lists(beam_size, stop):
    for seed, length_penalty in itertools.product(range(6), (0.0, 1.0)):
        model, idx = tiny(5, seed % 3, seed=seed), prompt(1, 2, seed)
        text, score = beam_search(model, idx, 7, beam_size, length_penalty, stop)
        expected, nats = beams_by_lists(model, idx, 7, beam_size, length_penalty, stop)
        assert text.tolist() == [expected] and score == pytest.approx(nats, abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, -1.0])
def test_a_search_ends_when_no_open_beam_can_win_and_finds_the_same(length_penalty, monkeypatch):
    steps, saved = [], 0
    step = sampler.Decoder.step
    monkeypatch.setattr(sampler.Decoder, "step", lambda decoder: steps.append(1) or step(decoder))
    for seed, stop in itertools.product(range(8), (1, 4)):
        model, idx = tiny(5, seed % 3, seed=seed), prompt(1, 2, seed)
        expected, nats = beams_by_lists(model, idx, 12, 5, length_penalty, stop)
        steps.clear()
        text, score = beam_search(model, idx, 12, 5, length_penalty, stop)
        assert text.tolist() == [expected] and score == pytest.approx(nats, abs=1e-4)
        saved += 12 - len(steps)
    assert saved > 20


@pytest.mark.parametrize("stop", [None, 2, 5])
def test_one_beam_is_greedy_decoding(stop):
    for seed, T in itertools.product(range(8), (1, 5, 12)):
        model, idx = tiny(variant=seed % 3), prompt(1, T, seed)
        text, _ = beam_search(model, idx, 12, 1, stop=stop)
        assert torch.equal(text, generate(model, idx, 12, temperature=0, stop=stop))


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 99), st.sampled_from([None, 1, 5]))
@settings(max_examples=40)
def test_the_score_of_a_beam_is_the_log_probability_of_its_text(beam_size, n, seed, stop):
    model, idx = tiny(16, seed % 3), prompt(1, 3, seed)
    text, score = beam_search(model, idx, n, beam_size, stop=stop)
    with torch.no_grad():
        nats = model(text[:, :-1]).log_softmax(-1).gather(2, text[:, 1:, None])[:, 2:].sum()
    assert score == pytest.approx(nats.item(), abs=1e-3)
    new = text[0, 3:].tolist()
    assert len(new) == n or new[-1] == stop
    assert stop not in new[:-1]


# The model afterwards --------------------------------------------------------------------------------------------


def untouched(model):
    """No trace of the decoding loop: parts are found in their own dictionaries only."""
    return not any(vars(m).keys() & (m._parameters.keys() | m._modules.keys()) for m in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_however_the_loop_ends(training):
    model = GPT(GPTConfig(V, 8, 1, 1, 8, dropout=0.5)).train(training)
    greedy = GPT(model.config).eval()
    greedy.load_state_dict(model.state_dict())
    assert torch.equal(generate(model, prompt(), 9, temperature=0), argmax_loop(greedy, prompt(), 9))  # no dropout
    assert model.training is training and untouched(model)
    tokens = stream(model, prompt(), 5)
    next(tokens)
    assert not model.training and not untouched(model)
    tokens.close()  # abandoned
    assert model.training is training and untouched(model)
    for _ in stream(model, prompt(), 5):
        break
    assert model.training is training and untouched(model)
    with pytest.raises(KeyboardInterrupt):
        for _ in stream(model, prompt(), 5):
            raise KeyboardInterrupt
    assert model.training is training and untouched(model)
    beam_search(model, prompt(), 3)
    assert model.training is training and untouched(model)


@pytest.mark.promise(
    "Bad input",
    "A model with NaN or infinite weights says so in one sentence instead of writing "
    "text.",
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("training", [True, False])
def test_a_broken_model_says_so_and_keeps_its_mode(bad, training):
    model = GPT(GPTConfig(V, 8, 1, 1, 8, tie_weights=False)).train(training)
    with torch.no_grad():
        model.lm_head.weight[3, 2] = bad
    for use in (generate, stream_all, beam_search):
        with pytest.raises(CourseError, match="NaN or infinite") as error:
            use(model, prompt(), 4)
        assert_one_sentence(error)
        assert model.training is training and untouched(model)


def stream_all(*args, **options):
    return list(stream(*args, **options))


def test_the_check_finds_any_logit_that_is_no_number():
    check_logits(torch.tensor([[1e30, -1e30], [0.0, 1.0]]))
    for bad in ([math.nan, 0], [math.inf, 0], [-math.inf, 0], [math.inf, -math.inf]):
        with pytest.raises(CourseError):
            check_logits(torch.tensor([[1.0, 2.0], bad]))


def test_two_streams_of_one_model_can_take_turns():
    model = tiny()
    both = zip(stream(model, prompt(1, 3), 10, seed=1), stream(model, prompt(1, 5), 10, seed=2), strict=True)
    rows = [torch.cat(tokens, dim=1) for tokens in zip(*both, strict=True)]
    for row, (T, seed) in zip(rows, ((3, 1), (5, 2)), strict=True):
        assert torch.equal(row, generate(model, prompt(1, T), 10, seed=seed)[:, T:])
    assert untouched(model)


def test_parts_can_be_exchanged_between_and_even_during_decoding():
    model = GPT(GPTConfig(V, 8, 1, 1, 8)).eval()
    new = torch.nn.Linear(8, V, bias=False)
    with decoding(model):
        model.lm_head = new
        assert model.lm_head is new
    assert model.lm_head is new and untouched(model)
    assert torch.equal(generate(model, prompt(), 9, temperature=0), argmax_loop(model, prompt(), 9))


@pytest.mark.parametrize("bias", [True, False])
def test_a_long_text_is_the_same_from_matrices_laid_out_for_decoding(bias: bool, monkeypatch: pytest.MonkeyPatch):
    model = GPT(GPTConfig(V, 64, 2, 2, 16, bias=bias)).eval()
    own = {name: p.data_ptr() for name, p in model.named_parameters()}
    with decoding(model, tokens=sampler.WORTH_A_COPY):
        weight = model.transformer["h"][0].mlp.c_fc.weight
        assert weight.stride() == (1, weight.shape[0]) and weight.data_ptr() not in own.values()
    copied = generate(model, prompt(2, 3), 60, temperature=0)
    monkeypatch.setattr(sampler, "WORTH_A_COPY", 10**9)
    assert torch.equal(copied, generate(model, prompt(2, 3), 60, temperature=0))
    assert untouched(model) and {name: p.data_ptr() for name, p in model.named_parameters()} == own


# Errors ---------------------------------------------------------------------------------------------------------

BAD_OPTIONS = [
    *({"temperature": t} for t in (-1, -0.1, math.nan, math.inf, -math.inf, True, "1", None, 1e7)),
    *({"top_k": k} for k in (0, -3, 1.5, 5.0, True, "5", math.nan)),
    *({name: p} for name in ("top_p", "min_p") for p in (0, 0.0, -0.1, 1.1, math.nan, math.inf, True, "0.9")),
    *({"seed": s} for s in (-1, 1.5, 2**64, "one", True, torch.tensor(3))),
    *({"stop": s} for s in (-1, V, 1.0, "x", True)),
    *({"past_window": w} for w in ("slide", None, 3, True)),
]


@pytest.mark.promise(
    "Bad input",
    "A temperature, top-k, top-p, min-p, seed or stop token that makes no sense (negative, NaN, infinite, text) is "
    "refused by its name in one sentence.",
)
@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_bad_options_are_refused_by_name_in_one_sentence(options):
    with pytest.raises(CourseError, match=f"^{next(iter(options))} must be ") as error:
        generate(tiny(), prompt(), 3, **options)
    assert_one_sentence(error)


@pytest.mark.parametrize("n", [-1, 1.5, 3.0, math.inf, "5", None, True])
def test_a_bad_number_of_tokens_is_refused(n):
    for use in (generate, stream_all, beam_search):
        with pytest.raises(CourseError, match=r"^max_new_tokens must be a whole number") as error:
            use(tiny(), prompt(), n)
        assert_one_sentence(error)


BAD_PROMPTS = [
    torch.zeros(1, 0, dtype=torch.int64),
    torch.zeros(0, 3, dtype=torch.int64),
    torch.tensor(3),
    torch.tensor([1, 2]),
    torch.zeros(1, 1, 2, dtype=torch.int64),
    torch.tensor([[1.0, 2.0]]),
    torch.tensor([[True, False]]),
    torch.tensor([[1j]]),
    [[]],
    [],
    [[1, 2], [3]],
    [[1.5]],
    "ROMEO",
    None,
    [["a"]],
    {"idx": 1},
    [-(10**309), 0.0],  # too large for a float
]


@pytest.mark.promise(
    "Bad input",
    "A prompt that is empty, text or of another shape than rows of token ids is refused in one "
    "sentence.",
)
@pytest.mark.parametrize("idx", BAD_PROMPTS, ids=lambda idx: repr(idx).replace("\n", " "))
def test_a_prompt_of_another_form_is_refused(idx):
    for use in (generate, stream_all, beam_search):
        with pytest.raises(CourseError, match=r"^The prompt must be whole-number token ids of shape \(B, T\)") as error:
            use(tiny(), idx, 3)
        assert_one_sentence(error)


@pytest.mark.parametrize(("ids", "wrong"), [([1, V], V), ([-1, 2], -1), ([1, 10**12], 10**12), ([-5, 99], -5)])
def test_unknown_tokens_are_refused_by_number(ids, wrong):
    for use in (generate, stream_all, beam_search):
        with pytest.raises(CourseError, match=rf"token {wrong}, but the model knows the tokens 0 to 10") as error:
            use(tiny(), torch.tensor([ids]), 3)
        assert_one_sentence(error)


def test_empty_texts_are_refused():
    with pytest.raises(CourseError, match="prompt is empty") as error:
        generate_text(tiny(), CHARS, "", 5)
    assert_one_sentence(error)
    with pytest.raises(CourseError, match="stop is empty") as error:
        generate_text(tiny(), CHARS, "a", 5, stop="")
    assert_one_sentence(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beam_size", 0), ("beam_size", 2.0), ("beam_size", True), ("max_new_tokens", 0)]
    + [("length_penalty", x) for x in (math.nan, math.inf, 11, "1", None)]
    + [("stop", x) for x in (-1, V, 0.0)],
)
def test_beam_search_refuses_bad_arguments(name, value):
    with pytest.raises(CourseError, match=f"^{name} must be ") as error:
        beam_search(tiny(), prompt(), **{"max_new_tokens": 3, name: value})
    assert_one_sentence(error)


def test_beam_search_takes_one_prompt():
    with pytest.raises(CourseError, match="one prompt") as error:
        beam_search(tiny(), prompt(2, 3), 3)
    assert_one_sentence(error)

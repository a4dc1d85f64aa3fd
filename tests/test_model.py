"""The GPT: every switch, the promises that all of them keep, and equality with the libraries' own parts."""

import dataclasses
import itertools
import math
import sys
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmcourse.errors import CourseError
from llmcourse.model import (
    ACTIVATIONS,
    CHOICES,
    GPT,
    MLP,
    Block,
    CausalSelfAttention,
    GPTConfig,
    KVCache,
    NgramEmbedding,
    causal_mask,
    rope_angles,
    rotate,
    sinusoids,
)

V, BLOCK, LAYERS, HEADS, WIDTH = 11, 8, 2, 2, 8
BOTH = (True, False)
SIZES = {  # GPT-2's four sizes and their parameters, the tied matrix counted once
    "gpt2": ((12, 12, 768), 124_439_808),
    "gpt2-medium": ((24, 16, 1024), 354_823_168),
    "gpt2-large": ((36, 20, 1280), 774_030_080),
    "gpt2-xl": ((48, 25, 1600), 1_557_611_200),
}


def build(seed=0, **settings_):
    """A tiny model; `lively` makes its weights large enough for a mistake to show."""
    torch.manual_seed(seed)
    shape = {"vocab_size": V, "block_size": BLOCK, "n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH}
    return GPT(GPTConfig(**shape | settings_)).eval()


@torch.no_grad()
def lively(model, std=0.3):
    """The same model with all its weights drawn anew, also those that start as 0 or 1."""
    for p in model.parameters():
        p.normal_(std=std)
    return model


def ids(B=2, T=BLOCK, seed=1, vocab_size=V):
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def cached_logits(model, idx, chunks):
    """The logits of `idx`, fed through one cache in pieces of the given lengths."""
    cache, start, out = KVCache(model, len(idx)), 0, []
    with torch.no_grad():
        for size in chunks:
            out.append(model(idx[:, start : start + size], cache))
            start += size
            assert cache.length == start
    return torch.cat(out, dim=1)


def assert_one_sentence(error):
    """Errors are for people: one line, one full stop at its end, nothing of Python's machinery."""
    text = str(error.value)
    assert type(error.value) is CourseError
    assert text.endswith(".") and "\n" not in text and 20 < len(text) < 260, text
    assert "Traceback" not in text and "object at 0x" not in text, text


# Every combination of the switches ------------------------------------------------------------------------------


def expected_to_be_still(config):
    """Ends of the names of the parameters whose first gradient is exactly zero: what feeds a zeroed projection."""
    if not config.zero_init:
        return ()
    inner = ("c_attn.weight", "c_attn.bias", "c_fc.weight", "c_fc.bias", "q_norm.weight", "k_norm.weight")
    before = ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")
    return inner + before if config.norm_position == "pre" else inner


@pytest.mark.parametrize("norm", CHOICES["norm"])
@pytest.mark.parametrize("position", CHOICES["position"])
def test_every_combination_has_its_shape_is_causal_learns_everywhere_and_decodes_with_a_cache(position, norm):
    idx, targets = ids(seed=1), ids(seed=2)
    changed = idx.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    rest = (CHOICES["norm_position"], CHOICES["activation"], BOTH, BOTH, BOTH, BOTH)
    names = ("norm_position", "activation", "qk_norm", "tie_weights", "bias", "zero_init")
    for values in itertools.product(*rest):
        switches = dict(zip(names, values, strict=True))
        model = build(position=position, norm=norm, **switches)

        loss = model.loss(idx, targets)
        loss.backward()
        still = expected_to_be_still(model.config)
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), (switches, name)
            assert bool((p.grad == 0).all()) == name.endswith(still or "nothing"), (switches, name)

        lively(model)
        with torch.no_grad():
            logits, moved = model(idx), model(changed)
        assert logits.shape == (2, BLOCK, V) and torch.isfinite(logits).all(), switches
        torch.testing.assert_close(moved[:, :5], logits[:, :5], atol=1e-6, rtol=0, msg=str(switches))
        assert not torch.allclose(moved[:, 5:], logits[:, 5:], atol=1e-3), switches  # and the present does see it
        torch.testing.assert_close(cached_logits(model, idx, (3, 1, 4)), logits, atol=2e-5, rtol=1e-4)


@lru_cache(maxsize=64)
def lively_model(position, norm_position, qk_norm, n_head):
    return lively(build(position=position, norm_position=norm_position, qk_norm=qk_norm, n_head=n_head))


@settings(max_examples=60)
@given(
    st.sampled_from(CHOICES["position"]),
    st.sampled_from(CHOICES["norm_position"]),
    st.booleans(),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 3),
    st.lists(st.integers(1, BLOCK), min_size=1, max_size=BLOCK),
    st.integers(0, 99),
)
def test_with_any_chunking_the_cache_changes_nothing(position, norm_position, qk_norm, n_head, B, chunks, seed):
    while sum(chunks) > BLOCK:
        chunks = chunks[:-1]
    model, idx = lively_model(position, norm_position, qk_norm, n_head), ids(B, sum(chunks), seed)
    torch.testing.assert_close(cached_logits(model, idx, chunks), model(idx), atol=2e-5, rtol=1e-4)


# The cache ------------------------------------------------------------------------------------------------------


def test_a_full_cache_refuses_more_tokens_and_stays_as_it_was():
    model = lively_model("learned", "pre", False, 2)
    idx, cache = ids(1, BLOCK), KVCache(model, 1)
    with torch.no_grad():
        model(idx[:, :6], cache)
        with pytest.raises(CourseError, match="at most 8 tokens") as error:
            model(idx[:, :3], cache)
        assert_one_sentence(error)
        assert cache.length == 6
        torch.testing.assert_close(model(idx[:, 6:], cache), model(idx)[:, 6:], atol=2e-5, rtol=1e-4)


def test_selecting_rows_of_a_cache_moves_their_pasts_along():
    model = lively_model("rope", "pre", True, 2)
    idx, cache = ids(3, BLOCK), KVCache(model, 3)
    rows = torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        model(idx[:, :5], cache)
        cache.select(rows)
        torch.testing.assert_close(model(idx[rows, 5:], cache), model(idx[rows])[:, 5:], atol=2e-5, rtol=1e-4)


def test_the_cache_has_the_type_of_the_weights():
    cache = KVCache(build().to(torch.bfloat16), 2)
    assert {t.dtype for t in cache.k + cache.v} == {torch.bfloat16}
    assert [tuple(t.shape) for t in cache.v] == [(2, HEADS, BLOCK, WIDTH // HEADS)] * LAYERS


# Attention against its definition and against PyTorch ------------------------------------------------------------

ATTENTION = list(itertools.product(CHOICES["position"], BOTH, CHOICES["norm_position"]))


@pytest.mark.parametrize(("position", "qk_norm", "norm_position"), ATTENTION)
def test_attention_maps_are_the_weights_that_the_forward_pass_uses(position, qk_norm, norm_position):
    model, idx = lively_model(position, norm_position, qk_norm, 2), ids()
    maps = model.attention_maps(idx)
    assert maps.shape == (LAYERS, 2, HEADS, BLOCK, BLOCK)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    assert (maps.triu(1) == 0).all() and (maps.tril() >= 0).all()
    with torch.no_grad():
        x = model.embed(idx)
        for block, weights in zip(model.transformer["h"], maps, strict=True):
            inside = block.ln_1(x) if block.pre else x
            v = block.attn.qkv(inside)[2]
            y = block.attn.c_proj((weights @ v).transpose(1, 2).flatten(2))
            torch.testing.assert_close(y, block.attn(inside), atol=1e-5, rtol=1e-4)
            x = block(x)
    torch.testing.assert_close(model.lm_head(model.transformer["ln_f"](x)), model(idx), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bias", BOTH)
@pytest.mark.parametrize(("n_embd", "n_head"), [(8, 1), (12, 3), (32, 4)])
@pytest.mark.promise(
    "Equality",
    "Attention gives the outputs and the attention maps of PyTorch's own `MultiheadAttention`.",
)
def test_attention_equals_multihead_attention_and_a_softmax_written_out(n_embd, n_head, bias):
    config = GPTConfig(V, BLOCK, 1, n_head, n_embd, position="none", bias=bias)
    ours = lively(CausalSelfAttention(config).eval())
    theirs = nn.MultiheadAttention(n_embd, n_head, bias=bias, batch_first=True).eval()
    pairs = [("in_proj", ours.c_attn), ("out_proj.", ours.c_proj)]
    weights = {f"{'in_proj_' if n == 'in_proj' else n}{k}": t for n, m in pairs for k, t in m.state_dict().items()}
    theirs.load_state_dict(weights)
    x = torch.randn(2, 7, n_embd)
    forbidden = ~causal_mask(7, 0, x.device)
    y, maps = theirs(x, x, x, attn_mask=forbidden, average_attn_weights=False)
    torch.testing.assert_close(ours(x), y, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.weights(x), maps, atol=1e-6, rtol=1e-4)
    q, k, v = ours.qkv(x)
    for b, h, t in itertools.product(range(2), range(n_head), range(7)):  # one query at a time, by the book
        scores = torch.stack([q[b, h, t] @ k[b, h, s] for s in range(t + 1)]) / math.sqrt(n_embd / n_head)
        mixed = sum(w * v[b, h, s] for s, w in enumerate(scores.exp() / scores.exp().sum()))
        torch.testing.assert_close(mixed, (maps @ v)[b, h, t], atol=1e-5, rtol=1e-4)


@given(st.integers(1, 6), st.integers(0, 6))
def test_the_causal_mask_lets_a_token_see_the_past_and_itself(T, past):
    mask = causal_mask(T, past, torch.device("cpu"))
    assert mask.tolist() == [[j <= past + i for j in range(past + T)] for i in range(T)]


def test_qk_norm_makes_attention_deaf_to_the_size_of_queries_and_keys():
    torch.manual_seed(0)
    attn = CausalSelfAttention(GPTConfig(V, BLOCK, 1, 2, 16, qk_norm=True, bias=False))
    x = torch.randn(1, BLOCK, 16)
    before = attn.weights(x).detach()
    with torch.no_grad():
        attn.c_attn.weight[:32] *= 1000  # queries and keys
    torch.testing.assert_close(attn.weights(x), before, atol=5e-3, rtol=0)  # eps still counts before
    q, k, _ = attn.qkv(x)
    for t in (q, k):
        torch.testing.assert_close(t.square().mean(-1), torch.ones(1, 2, BLOCK), atol=1e-3, rtol=0)


# Blocks, MLPs and norms against PyTorch --------------------------------------------------------------------------


@pytest.mark.parametrize("norm_position", CHOICES["norm_position"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.promise(
    "Equality",
    "A block of the model computes what PyTorch's own `TransformerEncoderLayer` computes with the same weights, "
    "with the norms before or after each part.",
)
def test_a_block_equals_a_transformer_encoder_layer_of_pytorch(norm_position, activation):
    config = GPTConfig(V, BLOCK, 1, 2, WIDTH, norm_position=norm_position, activation=activation)
    ours = lively(Block(config).eval())
    theirs = nn.TransformerEncoderLayer(
        WIDTH, 2, 4 * WIDTH, 0.0, activation, batch_first=True, norm_first=norm_position == "pre"
    ).eval()
    names = {"attn.c_attn.": "self_attn.in_proj_", "attn.c_proj.": "self_attn.out_proj."}
    names |= {"mlp.c_fc.": "linear1.", "mlp.c_proj.": "linear2.", "ln_1.": "norm1.", "ln_2.": "norm2."}
    weights = {names[k[: k.rindex(".") + 1]] + k[k.rindex(".") + 1 :]: t for k, t in ours.state_dict().items()}
    theirs.load_state_dict(weights)
    x = torch.randn(3, BLOCK, WIDTH)
    forbidden = ~causal_mask(BLOCK, 0, x.device)
    with torch.enable_grad():  # without it the library takes a fused path of its own
        torch.testing.assert_close(ours(x), theirs(x, src_mask=forbidden), atol=2e-5, rtol=1e-4)


NONLINEARITIES = {
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "relu": nn.ReLU(),
    "relu2": lambda x: x.clamp(min=0) ** 2,
    "silu": nn.SiLU(),
}


@pytest.mark.parametrize("activation", CHOICES["activation"])
def test_the_mlp_equals_its_formula(activation):
    mlp = lively(MLP(GPTConfig(V, BLOCK, 1, 2, WIDTH, activation=activation)).eval())
    x = torch.randn(2, 3, WIDTH)
    if activation == "swiglu":  # Shazeer 2020: (silu(x W) * (x V)) W2
        (W, U), (b, c) = mlp.c_fc.weight.chunk(2), mlp.c_fc.bias.chunk(2)
        a, u = x @ W.T + b, x @ U.T + c
        hidden = a * torch.sigmoid(a) * u
    else:
        hidden = NONLINEARITIES[activation](mlp.c_fc(x))
    torch.testing.assert_close(mlp(x), hidden @ mlp.c_proj.weight.T + mlp.c_proj.bias, atol=1e-5, rtol=1e-4)
    assert set(ACTIVATIONS) == set(NONLINEARITIES) | {"swiglu"}


@pytest.mark.parametrize("n_embd", [64, 96, 128, 384, 768])
@pytest.mark.parametrize("bias", BOTH)
def test_a_gated_mlp_has_about_as_many_parameters_as_a_plain_one(n_embd, bias):
    count = {
        a: sum(p.numel() for p in MLP(GPTConfig(V, BLOCK, 1, 1, n_embd, activation=a, bias=bias)).parameters())
        for a in ("gelu", "swiglu")
    }
    assert count["swiglu"] == pytest.approx(count["gelu"], rel=0.012)


@pytest.mark.parametrize("norm", CHOICES["norm"])
@pytest.mark.parametrize("size", [5.0, 1e-3])  # at the small size the formula's 1e-5 counts
def test_norms_equal_their_formulas(norm, size):
    model = lively(build(norm=norm))
    x = torch.randn(2, 3, WIDTH) * size + size / 5
    ln = model.transformer["ln_f"]
    expected = x
    if norm == "layernorm":
        var, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
        expected = (x - mean) / (var + 1e-5).sqrt() * ln.weight + ln.bias
    elif norm == "rmsnorm":
        expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * ln.weight
    torch.testing.assert_close(ln(x), expected, atol=1e-5, rtol=1e-4)


def test_where_the_norms_stand():
    x = torch.randn(2, 4, WIDTH)
    pre = lively(Block(GPTConfig(V, BLOCK, 1, 2, WIDTH))).eval()
    a = x + pre.attn(pre.ln_1(x))
    torch.testing.assert_close(pre(x), a + pre.mlp(pre.ln_2(a)))
    post = lively(Block(GPTConfig(V, BLOCK, 1, 2, WIDTH, norm_position="post"))).eval()
    a = post.ln_1(x + post.attn(x))
    torch.testing.assert_close(post(x), post.ln_2(a + post.mlp(a)))
    assert isinstance(build(norm_position="post").transformer["ln_f"], nn.Identity)


# Positions ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 9))
def test_sinusoids_equal_the_formula(length, channels):
    table, even = sinusoids(length, channels), channels + channels % 2
    assert table.shape == (length, channels)
    for t, c in itertools.product(range(length), range(channels)):
        angle = t / 10_000 ** ((c - c % 2) / even)
        assert table[t, c].item() == pytest.approx(math.cos(angle) if c % 2 else math.sin(angle), abs=1e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20), st.sampled_from([2, 4, 6, 16]), st.integers(0, 99))
def test_rotary_dot_products_depend_only_on_the_distance(m, n, shift, D, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, D, generator=generator, dtype=torch.float64)
    angles = rope_angles(64, D).double()
    turned = [[rotate(x, angles[t].cos(), angles[t].sin()) for t in (p, p + shift)] for x, p in ((q, m), (k, n))]
    (q1, q2), (k1, k2) = turned
    assert (q1 @ k1).item() == pytest.approx((q2 @ k2).item(), abs=1e-4)
    torch.testing.assert_close(q1.norm(), q.norm())
    torch.testing.assert_close(rotate(q, angles[0].cos(), angles[0].sin()), q)


def test_rotation_equals_multiplication_with_complex_numbers():
    x, angles = torch.randn(1, 2, 5, 8), rope_angles(5, 8)
    z = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotate(x, angles.cos(), angles.sin()), torch.cat((z.real, z.imag), dim=-1))


@pytest.mark.parametrize("position", CHOICES["position"])
def test_only_a_model_with_positions_can_tell_the_order_of_the_past(position):
    model = lively_model(position, "pre", False, 2)
    # A change of order in the past moves the last logits, but in one layer without positions it would not.
    one = lively(build(position=position, n_layer=1))
    idx, swapped = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[2, 1, 3, 4]])
    same = torch.allclose(one(idx)[:, -1], one(swapped)[:, -1], atol=1e-5)
    assert same == (position == "none")
    assert not torch.allclose(model(idx)[:, 0], model(swapped)[:, 0], atol=1e-3)


# Size, start and the tie -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_gpt2_has_the_published_number_of_parameters(name):
    (n_layer, n_head, n_embd), expected = SIZES[name]
    with torch.device("meta"):
        model = GPT(GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd))
    assert model.num_params() == expected
    assert model.num_params(non_embedding=True) == expected - 1024 * n_embd
    assert GPTConfig() == GPTConfig(50257, 1024, *SIZES["gpt2"][0])


def test_the_number_of_parameters_follows_from_the_switches():
    C, plain = WIDTH, build().num_params()
    assert plain == V * C + BLOCK * C + LAYERS * (12 * C * C + 13 * C) + 2 * C
    assert build(tie_weights=False).num_params() == plain + V * C
    assert build(position="rope").num_params() == build(position="none").num_params() == plain - BLOCK * C
    assert build(position="rope").num_params(non_embedding=True) == plain - BLOCK * C
    assert build(bias=False).num_params() == plain - LAYERS * 11 * C - C
    assert build(norm="rmsnorm").num_params() == plain - (2 * LAYERS + 1) * C
    assert build(norm="none").num_params() == plain - (2 * LAYERS + 1) * 2 * C
    assert build(norm_position="post").num_params() == plain - 2 * C
    assert build(qk_norm=True).num_params() == plain + LAYERS * 2 * C // HEADS


@pytest.mark.parametrize("norm", CHOICES["norm"])
@pytest.mark.parametrize("position", CHOICES["position"])
def test_an_untrained_model_loses_about_ln_v(position, norm):
    for norm_position, tie, zero in itertools.product(CHOICES["norm_position"], BOTH, BOTH):
        switches = {"norm_position": norm_position, "tie_weights": tie, "zero_init": zero}
        model = build(vocab_size=65, block_size=64, n_embd=64, position=position, norm=norm, **switches)
        with torch.no_grad():
            loss = model.loss(ids(8, 64, 1, 65), ids(8, 64, 2, 65)).item()
        assert loss == pytest.approx(math.log(65), abs=0.1), switches


def test_the_loss_is_the_mean_cross_entropy_in_nats_per_token():
    model, idx, targets = lively(build()), ids(seed=3), ids(seed=4)
    probs = model(idx).softmax(-1)
    nats = [-math.log(probs[b, t, targets[b, t]].item()) for b in range(2) for t in range(BLOCK)]
    assert model.loss(idx, targets).item() == pytest.approx(sum(nats) / len(nats), rel=1e-5)


@pytest.mark.parametrize("n_layer", [1, 2, 8])
@pytest.mark.parametrize("zero_init", BOTH)
@pytest.mark.parametrize("std", [0.02, 0.05])
def test_initial_weights_have_gpt2s_scale_or_the_one_that_was_asked_for(n_layer, zero_init, std):
    asked = {} if std == 0.02 else {"init_std": std}
    shape = {"vocab_size": 65, "block_size": 64, "n_layer": n_layer, "n_embd": 96, "tie_weights": False}
    model = build(**shape, zero_init=zero_init, **asked)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all(), name
        elif "ln_" in name:
            assert (p == 1).all(), name
        elif name.endswith("c_proj.weight"):
            expected = 0.0 if zero_init else std / math.sqrt(2 * n_layer)
            assert p.std().item() == pytest.approx(expected, rel=0.04), name
        else:
            assert p.std().item() == pytest.approx(std, rel=0.04) and abs(p.mean()) < std / 20, name


def test_tied_weights_are_one_matrix():
    model = build()
    assert model.lm_head.weight is model.transformer["wte"].weight
    assert sum(p is model.lm_head.weight for p in model.parameters()) == 1
    model.loss(ids(), ids(seed=2)).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert model.lm_head.weight is model.transformer["wte"].weight
    other = build(tie_weights=False)
    assert other.lm_head.weight is not other.transformer["wte"].weight
    copy = build(seed=9)
    copy.load_state_dict(model.state_dict())
    assert copy.lm_head.weight is copy.transformer["wte"].weight
    torch.testing.assert_close(copy(ids()), model(ids()), atol=0, rtol=0)


# Dropout --------------------------------------------------------------------------------------------------------


def test_dropout_acts_only_in_training():
    model = lively(build(dropout=0.5, n_embd=64))
    torch.testing.assert_close(model(ids()), model(ids()), atol=0, rtol=0)
    without = lively(build(n_embd=64))
    without.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(ids()), without(ids()), atol=0, rtol=0)
    torch.testing.assert_close(without.train()(ids()), without.eval()(ids()), atol=1e-6, rtol=1e-5)
    model.train()
    assert not torch.allclose(model(ids()), model(ids()), atol=1e-2)


def test_dropout_zeroes_its_share_and_scales_up_the_rest_in_every_place():
    model = lively(build(dropout=0.25, n_embd=64, block_size=64))
    idx = ids(8, 64)
    block = model.transformer["h"][0]
    x = torch.randn(8, 64, 64)
    for part, given_ in ((model.embed, idx), (block.mlp, x)):
        model.eval()
        expected = part(given_)
        model.train()
        y = part(given_)
        dropped = y == 0
        assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.01)
        torch.testing.assert_close(y[~dropped], expected[~dropped] / 0.75)
    # In attention there are two places: the weights, and what is written back.
    torch.manual_seed(3)
    assert (block.attn(x) == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    block.attn.resid_dropout.p = 0.0
    assert not torch.allclose(block.attn(x), block.attn(x), atol=1e-2)


# Hugging Face ----------------------------------------------------------------------------------------------------


def hugging_face(seed=0, **changes):
    """GPT-2 as the library builds it, with large random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    shape = {"vocab_size": 37, "n_positions": 16, "n_layer": 2, "n_head": 2, "n_embd": 24}
    config = transformers.GPT2Config(**shape | {"bos_token_id": 0, "eos_token_id": 0} | changes)
    return lively(transformers.GPT2LMHeadModel(config).eval(), std=0.2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layer": 1, "n_head": 1, "n_embd": 8},
        {"n_layer": 3, "n_head": 4, "n_embd": 48, "n_positions": 5, "vocab_size": 101},
        {"tie_word_embeddings": False},
        {"n_inner": 96, "activation_function": "gelu_pytorch_tanh"},
    ],
)
@pytest.mark.promise(
    "Equality",
    "With the weights of a Hugging Face GPT-2, the course's model gives the library's scores for every next token, "
    "to within 0.0001.",
)
def test_logits_equal_those_of_hugging_faces_gpt2(changes):
    hf = hugging_face(**changes)
    model = GPT.from_hf(hf).eval()
    idx = ids(3, hf.config.n_positions, 7, hf.config.vocab_size)
    with torch.no_grad():
        ours, theirs = model(idx), hf(idx).logits
    assert (ours - theirs).abs().max() < 1e-4 and theirs.std() > 0.1
    assert model.config.tie_weights == hf.config.tie_word_embeddings
    assert set(model.state_dict()) == set(hf.state_dict())  # GPT-2's own names, without renaming


def test_from_hf_reads_a_folder_and_leaves_the_source_as_it_was(tmp_path):
    hf = hugging_face()
    before = {name: t.clone() for name, t in hf.state_dict().items()}
    hf.save_pretrained(tmp_path)
    torch.testing.assert_close(GPT.from_hf(str(tmp_path)).state_dict(), GPT.from_hf(hf).state_dict())
    torch.testing.assert_close(hf.state_dict(), before, atol=0, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "relu"},
        {"activation_function": "gelu"},
        {"n_inner": 50},
        {"layer_norm_epsilon": 1e-6},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
    ],
)
def test_from_hf_refuses_a_model_that_would_compute_something_else(changes):
    with pytest.raises(CourseError, match=next(iter(changes))) as error:
        GPT.from_hf(hugging_face(**changes))
    assert_one_sentence(error)


def test_from_hf_refuses_other_objects_and_names_that_do_not_exist(tmp_path):
    hf = hugging_face()
    for wrong in (hf.transformer, nn.Linear(2, 2), 5, None, build()):
        with pytest.raises(CourseError, match="GPT2LMHeadModel") as error:
            GPT.from_hf(wrong)
        assert_one_sentence(error)
    with pytest.raises(CourseError, match="Could not load") as error:
        GPT.from_hf(str(tmp_path / "nothing"))
    assert_one_sentence(error)


def test_without_transformers_from_hf_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CourseError, match=r"llmcourse\[hub\]") as error:
        GPT.from_hf("gpt2")
    assert_one_sentence(error)


# Errors ----------------------------------------------------------------------------------------------------------

FIELDS = {f.name: f.type for f in dataclasses.fields(GPTConfig)}
WHOLE = [name for name, kind in FIELDS.items() if kind is int]
SWITCHES = [name for name, kind in FIELDS.items() if kind is bool]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def fits(name, value):
    """What the documentation allows, written a second time; fields that depend on each other aside."""
    if FIELDS[name] is int:
        return type(value) is int and value >= 1
    if FIELDS[name] is bool:
        return type(value) is bool
    if name == "dropout":
        return type(value) in (int, float) and 0 <= value < 1
    if name == "init_std":
        return type(value) in (int, float) and 0 < value <= 1
    return isinstance(value, str) and value in CHOICES[name]


@pytest.mark.promise(
    "Bad input",
    "Any value in any field of a model's configuration is taken if it fits, and refused in one sentence if "
    "not.",
)
@settings(max_examples=400)
@given(st.sampled_from(list(FIELDS)), ANYTHING)
def test_a_config_takes_what_fits_and_refuses_all_else_in_one_sentence(name, value):
    shape = {"n_embd": value} if name == "n_head" else {"n_head": 1}
    if fits(name, value):
        assert getattr(GPTConfig(**shape | {name: value}), name) == value
    else:
        with pytest.raises(CourseError) as error:
            GPTConfig(**shape | {name: value})
        text = str(error.value)
        assert type(error.value) is CourseError and text.endswith(".")
        assert name in text or (name == "n_head" and "n_embd" in text)


@pytest.mark.parametrize("name", WHOLE)
def test_every_size_refuses_each_kind_of_wrong_number(name):
    for wrong in (0, -1, 1.0, 2.5, math.nan, math.inf, "12", None, True):
        with pytest.raises(CourseError, match=f"^{name} must be a whole number") as error:
            GPTConfig(**{name: wrong})
        assert_one_sentence(error)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_refuses_what_is_neither_true_nor_false(name):
    for wrong in (0, 1, "yes", None, 1.0):
        with pytest.raises(CourseError, match=f"^{name} must be True or False") as error:
            GPTConfig(**{name: wrong})
        assert_one_sentence(error)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_names_what_there_is_to_choose_from(name):
    for wrong in ("LayerNorm", "", None, 3, ["none"]):
        with pytest.raises(CourseError, match=f"^{name} must be one of .*{CHOICES[name][-1]}") as error:
            GPTConfig(**{name: wrong})
        assert_one_sentence(error)


def test_dropout_must_leave_something():
    for wrong in (1, 1.0, -0.1, math.nan, math.inf, "0.1", None, True):
        with pytest.raises(CourseError, match=r"^dropout must be a number") as error:
            GPTConfig(dropout=wrong)
        assert_one_sentence(error)
    assert GPTConfig(dropout=0).dropout == 0


def test_weights_must_start_with_a_size():
    for wrong in (0, -0.02, 1.5, math.nan, math.inf, "0.02", None, True):
        with pytest.raises(CourseError, match=r"^init_std must be a number") as error:
            GPTConfig(init_std=wrong)
        assert_one_sentence(error)
    assert GPTConfig(init_std=1).init_std == 1


@given(st.integers(1, 300), st.integers(1, 40))
def test_heads_must_divide_the_width_and_the_error_proposes_one_that_fits(n_embd, n_head):
    if n_embd % n_head == 0:
        assert GPTConfig(n_embd=n_embd, n_head=n_head).head_dim * n_head == n_embd
        return
    with pytest.raises(CourseError, match="multiple of n_head") as error:
        GPTConfig(n_embd=n_embd, n_head=n_head)
    proposal = int(str(error.value).rstrip(".").rsplit("=", 1)[1])
    assert GPTConfig(n_embd=proposal, n_head=n_head).n_embd - n_embd in range(1, n_head)


def test_rotary_positions_need_an_even_head():
    with pytest.raises(CourseError, match="must be even, not 3") as error:
        GPTConfig(n_embd=6, n_head=2, position="rope")
    assert_one_sentence(error)


def test_a_config_survives_the_way_through_a_dict_and_refuses_strange_names():
    config = GPTConfig(65, 32, 2, 4, 64, 0.1, False, position="rope", qk_norm=True)
    assert GPTConfig.from_dict(dataclasses.asdict(config)) == config
    for unknown in ("n_heads", 7):
        with pytest.raises(CourseError, match=f"no setting {unknown}") as error:
            GPTConfig.from_dict({unknown: 4, "n_layer": 2})
        assert str(error.value).endswith(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layer = 3


@pytest.mark.parametrize("position", CHOICES["position"])
def test_the_model_reads_one_token_up_to_block_size_and_says_so(position):
    model = build(position=position)
    assert model(ids(1, 1)).shape == (1, 1, V) and model(ids(1, BLOCK)).shape == (1, BLOCK, V)
    with pytest.raises(CourseError, match=r"at most 8 tokens .* not 9: .*idx\[:, -8:\]") as error:
        model(ids(1, BLOCK + 1))
    assert_one_sentence(error)
    for wrong in (ids(2, 0), ids(1, 3)[0], torch.tensor(3), ids(2, 4)[None]):
        for use in (model, model.attention_maps):
            with pytest.raises(CourseError, match=r"shape \(B, T\)") as error:
                use(wrong)
            assert_one_sentence(error)


def test_attention_is_what_the_library_computes_also_in_half_precision():
    model = lively(build(position="rope", qk_norm=True)).to(torch.bfloat16)
    idx = ids()
    assert model(idx).dtype == torch.bfloat16
    torch.testing.assert_close(cached_logits(model, idx, (5, 3)), model(idx), atol=0.1, rtol=0.1)
    q, k, v = model.transformer["h"][0].attn.qkv(model.embed(idx))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mixed = model.transformer["h"][0].attn.weights(model.embed(idx)) @ v
    torch.testing.assert_close(mixed, y, atol=0.02, rtol=0.05)


# --- n-gram embeddings ---------------------------------------------------------------------------------------------


def ngram_model(rows: int = 500, n: int = 4) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=65, block_size=16, n_layer=1, n_head=2, n_embd=8, position="rope",
                          ngram=n, ngram_rows=rows))  # fmt: skip
    for p in model.parameters():
        torch.nn.init.normal_(p)
    return model.eval()


def test_an_exact_table_gives_every_pair_a_row_of_its_own():
    table = NgramEmbedding(GPTConfig(vocab_size=5, n_embd=8, n_head=2, ngram=2), 2)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))  # (25, 2)
    vectors = table(pairs)[:, 1]  # (25, C)
    assert len(vectors.unique(dim=0)) == 25 and len(table(pairs)[:, 0].unique(dim=0)) == 5
    assert table.table.num_embeddings == 36  # and one more token, for "nothing before"


def test_a_hashed_table_is_used_evenly():
    table = NgramEmbedding(GPTConfig(vocab_size=65, n_embd=8, n_head=2, ngram_rows=1000), 3)
    used: list[torch.Tensor] = []
    table.table.register_forward_pre_hook(lambda _, rows: used.append(rows[0].flatten()))
    table(torch.randint(65, (1, 50_000), generator=torch.Generator().manual_seed(0)))
    counts = used[0].bincount(minlength=1000)
    assert counts.min() > 20 and counts.max() < 100  # 50 expected


@pytest.mark.parametrize("n", [2, 3, 5])
def test_ngrams_look_at_the_past_only(n: int):
    model, idx = ngram_model(n=n), torch.randint(65, (2, 12))
    changed = idx.clone()
    changed[:, 7] = (idx[:, 7] + 1) % 65
    before, after = model(idx), model(changed)
    assert torch.equal(before[:, :7], after[:, :7]) and not torch.isclose(before[:, 7], after[:, 7]).all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_ngrams_are_the_same_with_a_cache_however_the_text_is_cut(pieces: list[int]):
    model, T = ngram_model(), sum(pieces)
    idx = torch.randint(65, (2, T), generator=torch.Generator().manual_seed(T))
    with torch.no_grad():
        cache = KVCache(model, 2)
        parts = [model(piece, cache) for piece in idx.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(idx))


def test_huge_ngrams_do_not_overflow():
    model = GPT(GPTConfig(vocab_size=50_257, block_size=8, n_layer=1, n_head=1, n_embd=4, ngram=6))
    assert model(torch.full((1, 8), 50_256)).isfinite().all()

"""Equality: what this course builds gives the numbers of the libraries that everybody uses.

Whole trainings against Hugging Face's models, sampling against `generate`, the tokenizer against tiktoken and
`tokenizers` on a million characters, and a sharded training against one process. The parts are compared in the tests
of each module. Run as a program this file is one of two processes that share a model (`shard`).
"""

import itertools
import math
import os
import random
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import regex
import tiktoken
import torch
import torch.nn.functional as F

from llmcourse import data, recipes
from llmcourse.evaluation import evaluate
from llmcourse.model import GPT, GPTConfig
from llmcourse.sampler import apply_min_p, apply_temperature, apply_top_k, apply_top_p, beam_search, generate
from llmcourse.tokenizer import SPLIT_PATTERN, BPETokenizer, CharTokenizer
from llmcourse.trainer import TrainConfig, Trainer, configure_optimizers

torch.set_num_threads(1)
V, BLOCK, LAYERS, HEADS, WIDTH = 65, 16, 2, 2, 24


# ---- the models of Hugging Face -------------------------------------------------------------------------------------

LLAMA = {"position": "rope", "norm": "rmsnorm", "activation": "swiglu", "bias": False}
SWITCHES = {
    "GPT2": {},
    "OpenAIGPT": {"norm_position": "post"},  # GPT-1
    "Llama": LLAMA | {"tie_weights": False},
    "Qwen3": LLAMA | {"qk_norm": True},
}


def library_model(family: str, vocab_size: int = V, block_size: int = BLOCK, std: float = 0.02) -> torch.nn.Module:
    """A small model of the library's own class, with random weights, in float64."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    size |= {"max_position_embeddings": block_size, "intermediate_size": 8 * WIDTH // 3, "rms_norm_eps": 1e-5}
    if family in ("GPT2", "OpenAIGPT"):
        size = {"n_positions": block_size, "n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH}
        size |= {f"{place}_pdrop": 0.0 for place in ("resid", "embd", "attn")}
    if family == "Qwen3":
        size |= {"num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS}
    size |= {"tie_word_embeddings": family != "Llama", "initializer_range": std}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocab_size, bos_token_id=None, eos_token_id=None, pad_token_id=None, **size
    )
    name = f"{family}LMHeadModel" if family in ("GPT2", "OpenAIGPT") else f"{family}ForCausalLM"
    torch.manual_seed(0)
    return getattr(transformers, name)(config).double().eval()


def translated(weights: dict[str, torch.Tensor], family: str) -> dict[str, torch.Tensor]:
    """The library's weights under our names."""
    if family in ("GPT2", "OpenAIGPT"):  # they store linear layers input dimension first
        names = {name: name.replace("tokens_embed", "wte").replace("positions_embed", "wpe") for name in weights}
        across = ("c_attn.weight", "c_fc.weight", "c_proj.weight")
        return {names[name]: t.t() if name.endswith(across) else t for name, t in weights.items()}
    ours = {"transformer.wte": ["model.embed_tokens"], "transformer.ln_f": ["model.norm"], "lm_head": ["lm_head"]}
    for i in range(LAYERS):
        us, them = f"transformer.h.{i}.", f"model.layers.{i}."
        ours[us + "attn.c_attn"] = [f"{them}self_attn.{x}_proj" for x in "qkv"]
        ours[us + "attn.c_proj"] = [f"{them}self_attn.o_proj"]
        ours[us + "mlp.c_fc"] = [f"{them}mlp.{x}_proj" for x in ("gate", "up")]
        ours[us + "mlp.c_proj"] = [f"{them}mlp.down_proj"]
        ours[us + "ln_1"] = [them + "input_layernorm"]
        ours[us + "ln_2"] = [them + "post_attention_layernorm"]
        if family == "Qwen3":
            ours |= {f"{us}attn.{x}_norm": [f"{them}self_attn.{x}_norm"] for x in "qk"}
    return {f"{us}.weight": torch.cat([weights[f"{t}.weight"] for t in them]) for us, them in ours.items()}


def our_model(library: torch.nn.Module, family: str, vocab_size: int = V, block_size: int = BLOCK) -> GPT:
    """Our model with the library's weights, in float64; every weight of the one is a weight of the other."""
    model = GPT(GPTConfig(vocab_size, block_size, LAYERS, HEADS, WIDTH, **SWITCHES[family])).double().eval()
    model.load_state_dict(translated(library.state_dict(), family))
    assert model.num_params() == sum(p.numel() for p in library.parameters())
    return model


@pytest.fixture(scope="module")
def shakespeare() -> tuple[str, str]:
    if folder := os.environ.get("LLMCOURSE_DATA"):
        return data.split(Path(folder, "tinyshakespeare.txt").read_text(encoding="utf-8"))
    return data.split(data.load())


@pytest.fixture(scope="module")
def ids(shakespeare) -> tuple[torch.Tensor, torch.Tensor]:
    tokenizer = CharTokenizer.from_text("".join(shakespeare))
    return tuple(torch.tensor(tokenizer.encode(text)) for text in shakespeare)


def train_the_library(model: torch.nn.Module, c: TrainConfig, train: torch.Tensor) -> list[float]:
    """The canonical recipe as a stranger would write it: AdamW, clipping, and a triangle as the learning rate."""
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(c.beta1, c.beta2), fused=False, foreach=False)
    generator, losses = torch.Generator().manual_seed(c.seed), []
    for step in range(c.max_steps):
        up, down = (step + 1) / c.warmup_steps, (c.max_steps - step) / (c.max_steps - c.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = c.learning_rate * min(up, down)
        x, y = data.get_batch(train, 12, BLOCK, generator)
        loss = F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", SWITCHES)
@pytest.mark.promise(
    "Equality",
    "A whole training run of 20 steps ends with the losses and the weights of the same run with Hugging Face's own "
    "model and torch's AdamW, for the architectures of GPT-1, GPT-2, Llama and Qwen3.",
)
def test_a_whole_training_equals_one_of_hugging_faces_model_with_torchs_adamw(family, ids):
    changes = {"max_steps": 20, "warmup_steps": 5, "log_interval": 1, "eval_interval": 100}
    c = recipes.get("canonical").with_settings(**changes).train_config()
    library = library_model(family)
    model, train = our_model(library, family), ids[0]
    losses = train_the_library(library.train(), c, train)
    log = Trainer(model, c, train, device="cpu", progress=False).run()
    assert losses[-1] < losses[0] - 0.5  # it learned something
    # Rotary angles are float32 in both, and the library's frequencies differ from ours in the last bit.
    atol = 1e-5 if model.config.position == "rope" else 1e-12
    assert [r["loss"] for r in log] == pytest.approx(losses, abs=1e-6)  # the log holds float32
    torch.testing.assert_close(model.state_dict(), translated(library.state_dict(), family), rtol=0, atol=atol)


@pytest.mark.parametrize("family", SWITCHES)
@pytest.mark.promise(
    "Equality",
    "The loss that the course reports for a text is the mean of the losses that Hugging Face's models compute for it.",
)
def test_evaluate_equals_the_mean_of_hugging_faces_own_losses(family, ids):
    library, text = library_model(family, std=0.3), ids[1][:503]
    total, T = 0.0, BLOCK - 1  # the library takes the targets out of the window, so it holds one token more
    for start in range(0, len(text) - 1, T):
        window = text[None, start : start + T + 1]
        total += library(window, labels=window).loss.item() * (window.shape[1] - 1)
    model = our_model(library, family)
    assert evaluate(model, text, block_size=T) == pytest.approx(total / (len(text) - 1), rel=1e-6)


# ---- sampling -------------------------------------------------------------------------------------------------------


def prompts(B: int, T: int, vocab_size: int = V, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def library_generate(library: torch.nn.Module, idx: torch.Tensor, n: int, **options):
    """The library's continuation, with nothing set but what is named."""
    transformers = pytest.importorskip("transformers")
    plain = {"max_new_tokens": n, "pad_token_id": 0}
    if options.get("do_sample"):
        plain["top_k"] = 0  # its own default is 50
    config = transformers.GenerationConfig(**plain | options)
    return library.generate(idx, attention_mask=torch.ones_like(idx), generation_config=config)


@pytest.mark.parametrize("family", SWITCHES)
@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.promise(
    "Equality",
    "Greedy decoding writes the tokens that Hugging Face's `generate` writes, with and without a stop token.",
)
def test_greedy_continuations_equal_those_of_hugging_faces_generate(family, stopping):
    library = library_model(family, std=0.5)
    model, idx = our_model(library, family), prompts(8, 4)
    endless = library_generate(library, idx, 12)
    comes = next(row[4] for row in endless.tolist() if row[4] != row[-1])  # and other tokens after it
    stop = comes if stopping else None
    ending = {"eos_token_id": stop, "pad_token_id": stop} if stopping else {}
    theirs = library_generate(library, idx, 12, **ending)
    assert torch.equal(generate(model, idx, 12, temperature=0, stop=stop), theirs)
    assert torch.equal(theirs, endless) != stopping


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
@pytest.mark.promise(
    "Equality",
    "With the same seed, temperature, top-k, top-p and min-p, sampling on a CPU draws the very tokens that Hugging "
    "Face's `generate` draws.",
)
def test_with_the_same_seed_sampling_draws_the_tokens_of_hugging_faces_generate(options):
    library = library_model("GPT2", std=0.3)
    model, idx = our_model(library, "GPT2"), prompts(8, 4)
    seen = set()
    for seed in range(5):
        torch.manual_seed(seed)
        theirs = library_generate(library, idx, 12, do_sample=True, **options)
        assert torch.equal(generate(model, idx, 12, seed=seed, **options), theirs)
        seen.add(tuple(theirs[0].tolist()))
    assert len(seen) > 1


@pytest.mark.parametrize("beam_size", [2, 3, 8])
@pytest.mark.promise(
    "Equality",
    "Beam search without a stop token finds the text and the log-probability that Hugging Face's beam search finds.",
)
def test_beams_of_one_length_equal_those_of_hugging_face(beam_size):
    for seed, family in enumerate(SWITCHES):
        library = library_model(family, std=0.5)
        idx, n = prompts(1, 3, seed=seed), 10
        theirs = library_generate(
            library, idx, n, num_beams=beam_size, return_dict_in_generate=True, output_scores=True
        )
        text, nats = beam_search(our_model(library, family), idx, n, beam_size)
        assert torch.equal(text, theirs.sequences)
        assert nats == pytest.approx(n * theirs.sequences_scores.item(), abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_wide_enough_for_all_texts_equals_hugging_faces_also_when_beams_end_early(length_penalty):
    lengths, not_greedy = set(), 0
    for seed, family in itertools.product(range(5), SWITCHES):
        library = library_model(family, vocab_size=4, std=0.5)
        model, idx = our_model(library, family, vocab_size=4), prompts(1, 2, 4, seed)
        theirs = library_generate(
            library, idx, 3, num_beams=64, eos_token_id=1, length_penalty=length_penalty, early_stopping="never"
        )
        text, _ = beam_search(model, idx, 3, 64, length_penalty, stop=1)
        assert torch.equal(text, theirs)
        lengths.add(text.shape[1])
        not_greedy += not torch.equal(text, generate(model, idx, 3, temperature=0, stop=1))
    assert len(lengths) > 1 and not_greedy > 0


def test_the_filters_keep_the_tokens_that_hugging_faces_keep():
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(200, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    pairs = [(apply_top_k, process.TopKLogitsWarper, (1, 2, 40, 299, 300, 1000))]
    pairs += [(apply_top_p, process.TopPLogitsWarper, (0.01, 0.3, 0.5, 0.9, 0.99, 0.9999))]
    pairs += [(apply_min_p, process.MinPLogitsWarper, (1e-4, 0.01, 0.05, 0.3, 0.99, 1.0))]
    pairs += [(apply_temperature, process.TemperatureLogitsWarper, (0.1, 0.7, 1.0, 2.5, 50.0))]
    for ours, theirs, strengths in pairs:
        for strength in strengths:
            assert torch.equal(ours(logits, strength), theirs(strength)(None, logits)), (ours.__name__, strength)


# ---- the tokenizer --------------------------------------------------------------------------------------------------

EVERY = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)  # all of Unicode
OLD = {c for c in EVERY if unicodedata.ucd_3_2_0.category(c) != "Cn"}  # since 2002: in the table of every library
BYTES = {bytes([b]): b for b in range(256)}


@pytest.fixture(scope="module")
def common() -> str:
    """The characters that both libraries' tables call the same: a letter, a number, blank, or none of these."""
    differing: set[str] = set()
    for kind in (r"\p{L}", r"\p{N}", r"\s"):
        table = tiktoken.Encoding("table", pat_str=kind, mergeable_ranks=BYTES, special_tokens={})
        differing |= set(regex.findall(kind, EVERY)) ^ set(table.decode(table.encode(EVERY)))
    assert not differing & OLD  # as the documentation says: only characters that are new to Unicode
    return "".join(c for c in EVERY if c not in differing)


def jumble(common: str, shakespeare: tuple[str, str], n: int, seed: int) -> str:
    """`n` random characters: runs of one script, of any character, of emoji and their joiners, of blanks, of words."""
    rng, parts, length = random.Random(seed), [], 0
    blanks = [c for c in common if c.isspace()]
    emoji = [chr(i) for i in (*range(0x1F300, 0x1F650), 0x200D, 0xFE0F, *range(0x1F1E6, 0x1F200))]
    english = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "’s", " 1", "2024", "e\u0301", "...", "\r\n"]
    words = [f" {word}" for word in shakespeare[0][:100_000].split(" ")]
    while length < n:
        start = rng.randrange(len(common))
        kinds = [common[start : start + 128], common, emoji, blanks, english, words, " ", "a", "'", "\n"]
        weights = [6, 2, 2, 3, 2, 2, 1, 1, 1, 1]
        run = rng.choices(rng.choices(kinds, weights)[0], k=min(rng.choice((1, 2, 5, 20, 200)), n - length))
        parts += run
        length += sum(map(len, run))
    return "".join(parts)[:n]


@pytest.fixture(scope="module")
def trained(shakespeare, common) -> BPETokenizer:
    """Merges of English, and of characters of several bytes."""
    return BPETokenizer.train(shakespeare[0][:100_000] + jumble(common, shakespeare, 20_000, seed=1), 1000)


@pytest.fixture(scope="module")
def million(common, shakespeare) -> str:
    return jumble(common, shakespeare, 1_000_000, seed=random.randrange(10**6))  # another one each time


@pytest.mark.promise(
    "Equality",
    "A million random characters from all of Unicode become exactly the tokens that tiktoken makes of them with the "
    "same merges, and decode to the same bytes.",
)
def test_a_million_random_characters_become_the_ids_of_tiktoken_and_the_same_bytes_again(trained, million):
    ids = trained.encode(million)
    assert ids == trained.to_tiktoken().encode(million)
    assert trained.decode_bytes(ids) == million.encode() and trained.decode(ids) == million
    assert len(million) == 1_000_000 and len(set(million)) > 100_000
    assert len(set(ids)) > 700  # most of the merges were needed


def as_tokenizers(trained: BPETokenizer):
    """The same merges in Hugging Face's `tokenizers`, which writes every byte as one visible character."""
    tokenizers = pytest.importorskip("tokenizers")
    visible = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    hidden = [b for b in range(256) if b not in visible]
    shown = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    names = ["".join(shown[b] for b in trained.decode_bytes([i])) for i in range(trained.vocab_size)]
    vocab = {name: i for i, name in enumerate(names)}
    model = tokenizers.models.BPE(vocab, [(names[a], names[b]) for a, b in trained.merges])
    theirs, pre = tokenizers.Tokenizer(model), tokenizers.pre_tokenizers
    split = pre.Split(tokenizers.Regex(SPLIT_PATTERN), "isolated")
    theirs.pre_tokenizer = pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    theirs.decoder = tokenizers.decoders.ByteLevel()
    return theirs


@pytest.mark.promise(
    "Equality",
    "With the same merges, Hugging Face's `tokenizers` gives the same tokens, for Shakespeare and for random "
    "characters of many scripts.",
)
def test_the_same_merges_in_hugging_faces_tokenizers_give_the_same_ids(trained, million, shakespeare):
    theirs = as_tokenizers(trained)
    for text in ("".join(filter(OLD.__contains__, million[:500_000])), shakespeare[1]):
        encoded = theirs.encode(text)
        assert trained.encode(text) == encoded.ids
        assert theirs.decode(encoded.ids) == text


# ---- a model in two halves ------------------------------------------------------------------------------------------

STEPS, BATCH = 6, 8
# PyTorch 2.9 cannot average sharded momenta, and rounds more.
SHARDED, ROUNDING = (("adamw", "muon"), 1e-13) if torch.__version__ >= "2.13" else (("adamw",), 1e-8)


def small_training(optimizer: str, rank: int = 0, processes: int = 1) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and last weights of a few steps; several processes hold a part of every weight each (FSDP)."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, 8, 2, 2, 16, tie_weights=optimizer == "adamw")).double()
    if processes > 1:
        from torch.distributed.fsdp import fully_shard

        for block in model.transformer["h"]:
            fully_shard(block)
        fully_shard(model)
    train = torch.arange(700).square() // 7 % 11
    optimizers = configure_optimizers(model, TrainConfig(optimizer=optimizer, learning_rate=3e-3))
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(STEPS):
        x, y = data.get_batch(train, BATCH, 8, generator)
        x, y = x[rank::processes], y[rank::processes]
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for o in optimizers:
            o.step()
            o.zero_grad()
        if processes > 1:
            torch.distributed.all_reduce(loss.data)
        losses.append(loss.item() / processes)
    state = model.state_dict()
    assert processes == 1 or all(t.to_local().numel() < t.numel() for t in state.values())  # nobody holds a whole one
    return losses, {name: t.full_tensor() if processes > 1 else t for name, t in state.items()}


def shard(folder: str) -> None:
    """One of two processes."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    results = {optimizer: small_training(optimizer, rank, 2) for optimizer in SHARDED}
    if rank == 0:
        torch.save(results, Path(folder, "results.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.promise(
    "Equality",
    "The model can be sharded over two processes with torch's FSDP: losses and weights are those of one process, "
    "with AdamW and with Muon.",
)
def test_a_model_sharded_over_two_processes_trains_like_the_whole_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    world = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, __file__, "shard", str(tmp_path)]
    workers = [subprocess.Popen(command, env=world | {"RANK": r}, stderr=subprocess.PIPE, text=True) for r in "01"]
    for worker in workers:
        _, err = worker.communicate(timeout=180)
        assert worker.returncode == 0, err
    for optimizer, (losses, weights) in torch.load(tmp_path / "results.pt").items():
        alone, whole = small_training(optimizer)
        assert losses == pytest.approx(alone, rel=1e-9) and not math.isclose(alone[0], alone[-1], rel_tol=0.01)
        torch.testing.assert_close(weights, whole, rtol=0, atol=ROUNDING)


if __name__ == "__main__":
    {"shard": shard}[sys.argv[1]](*sys.argv[2:])

"""The GPT: a stack of blocks that turns token ids into a score for every possible next token.

The default configuration is GPT-2 small, with GPT-2's own parameter names, so its published weights fit
without renaming. Each class is smaller than the one that uses it: `CausalSelfAttention` and `MLP` make a
`Block`, blocks make a `GPT`. A few switches (`position`, `norm`, `activation`, …) turn it into the
variants that the lessons compare; all of them keep the same shapes.

Letters used for shapes: B sequences in a batch, T tokens in a sequence, C = n_embd channels,
V = vocab_size, H = n_head, D = C / H channels of one head.

Sources: Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2), Su et al. 2021 (rotary positions),
Zhang & Sennrich 2019 (RMSNorm), Shazeer 2020 (SwiGLU), So et al. 2021 (squared ReLU), Henry et al. 2020
(QK-norm), Svenstrup et al. 2017 (hashed embeddings).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import CourseError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # the approximation that GPT-2 was trained with
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
    "swiglu": F.silu,  # gated: see MLP
}
PRIME, HASH = 2**31 - 1, 40_503  # of the n-gram tables; products stay below 2^63
CHOICES = {
    "position": ("learned", "sinusoidal", "rope", "none"),
    "norm": ("layernorm", "rmsnorm", "none"),
    "norm_position": ("pre", "post"),
    "activation": tuple(ACTIVATIONS),
}


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. The defaults are GPT-2 small: 124,439,808 parameters.

    `position` is how the model knows the order, `norm` and `norm_position` which normalization stands
    before ("pre") or after ("post") each sublayer, `activation` the MLP's nonlinearity, `qk_norm`
    normalizes queries and keys, `tie_weights` shares the embedding with the output head, `bias` gives every
    linear layer and LayerNorm a bias, `init_std` is the typical size of a weight at the start, `zero_init` lets
    each sublayer start by adding nothing, `ngram` above 1 also looks up each pair of tokens (2), each triple (3)
    and so on, in tables of at most `ngram_rows` rows.

    Raises CourseError if a value has the wrong type, is out of range or does not fit the others.
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True
    tie_weights: bool = True
    position: str = "learned"
    norm: str = "layernorm"
    norm_position: str = "pre"
    activation: str = "gelu_tanh"
    qk_norm: bool = False
    zero_init: bool = False
    init_std: float = 0.02
    ngram: int = 1
    ngram_rows: int = 16384

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is int and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise CourseError(f"{f.name} must be a whole number of at least 1, not {value!r}.")
            if f.type is bool and not isinstance(value, bool):
                raise CourseError(f"{f.name} must be True or False, not {value!r}.")
        for name, allowed in CHOICES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in allowed:
                raise CourseError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        number = isinstance(self.dropout, int | float) and not isinstance(self.dropout, bool)
        if not (number and 0 <= self.dropout < 1):
            raise CourseError(f"dropout must be a number from 0 up to (not including) 1, not {self.dropout!r}.")
        if type(self.init_std) not in (int, float) or not 0 < self.init_std <= 1:
            raise CourseError(f"init_std must be a number above 0 and at most 1, not {self.init_std!r}.")
        if self.n_embd % self.n_head:
            fitting = math.ceil(self.n_embd / self.n_head) * self.n_head
            raise CourseError(
                f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head}), so that every head gets "
                f"the same whole number of channels; try n_embd={fitting}."
            )
        if self.position == "rope" and self.head_dim % 2:
            raise CourseError(
                f"Rotary positions turn pairs of channels, so n_embd / n_head must be even, not {self.head_dim}."
            )

    @property
    def head_dim(self) -> int:
        """Channels of one head, D = C / H."""
        return self.n_embd // self.n_head

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a plain dict, such as the one in a checkpoint; an unknown name is a CourseError."""
        if not isinstance(values, Mapping):
            raise CourseError(f"A configuration is made from a dict of settings, not from a {type(values).__name__}.")
        known = [f.name for f in fields(cls)]
        if unknown := sorted(str(name) for name in set(values) - set(known)):
            raise CourseError(f"GPTConfig has no setting {', '.join(unknown)}; it has {', '.join(known)}.")
        return cls(**values)


def make_norm(config: GPTConfig, size: int | None = None) -> nn.Module:
    """The normalization that `config.norm` names, over the last dimension."""
    size = size or config.n_embd
    if config.norm == "layernorm":
        return nn.LayerNorm(size, bias=config.bias)
    return nn.RMSNorm(size, eps=1e-5) if config.norm == "rmsnorm" else nn.Identity()


def sinusoids(length: int, channels: int) -> Tensor:
    """Fixed positions `(length, channels)` of Vaswani et al. 2017: even channels are sines, odd ones cosines."""
    angles = rope_angles(length, channels + channels % 2)  # (length, channels / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :channels]


def rope_angles(length: int, channels: int, base: float = 10_000.0) -> Tensor:
    """Angle in radians of each channel pair at each position, `(length, channels / 2)`.

    Pair i turns by base^(-2i / channels) a step: the first pairs turn fast, the last ones hardly at all.
    """
    frequency = base ** (-torch.arange(0, channels, 2).float() / channels)
    return torch.outer(torch.arange(length).float(), frequency)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair (i, i + D/2) of `x (B, H, T, D)` by its angle; `cos`, `sin` are `(T, D / 2)`.

    After turning queries and keys, their dot product depends only on the distance between the two positions.
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class NgramEmbedding(nn.Module):
    """A learned vector for every run of n tokens, looked up like the token's own: what a table of counts knows.

    Runs that are too many for the table share its rows, by a hash: rare ones then disturb each other a little.
    Before the first token stands a token of its own, number V.
    """

    def __init__(self, config: GPTConfig, n: int) -> None:
        super().__init__()
        self.n, self.base = n, config.vocab_size + 1
        self.rows = min(self.base**n, config.ngram_rows)
        self.table = nn.Embedding(self.rows, config.n_embd)

    def forward(self, idx: Tensor) -> Tensor:
        """Vectors `(B, T, C)` of the n-grams that end at each token of `idx (B, T)`."""
        T = idx.shape[1]
        before = F.pad(idx, (self.n - 1, 0), value=self.base - 1)  # (B, n - 1 + T)
        number = torch.zeros_like(idx)
        for i in range(self.n):
            number = (number * self.base + before[:, i : i + T]) % PRIME  # no overflow, whatever n and V are
        if self.rows < self.base**self.n:  # scatter neighbors over the whole table
            number = number * HASH % PRIME
        return self.table(number % self.rows)


class KVCache:
    """Keys and values of the tokens seen so far, one slot for each position up to `block_size`.

    Allocated once, filled in place: a decoding step then computes one token instead of the whole sequence.
    Its output equals the uncached model's as long as `length` stays within `block_size`.
    """

    def __init__(self, model: "GPT", batch_size: int) -> None:
        c, weight = model.config, model.lm_head.weight
        shape = (batch_size, c.n_head, c.block_size, c.head_dim)
        self.k = [weight.new_zeros(shape) for _ in range(c.n_layer)]
        self.v = [weight.new_zeros(shape) for _ in range(c.n_layer)]
        # the tokens themselves, (B, block_size): the n-grams of the next ones begin among them
        self.idx = torch.zeros(batch_size, c.block_size, dtype=torch.long, device=weight.device)
        self.length = 0  # tokens that every layer has stored

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens' `k`, `v` `(B, H, T, D)`; return those of all tokens, `(B, H, length + T, D)`."""
        start, end = self.length, self.length + k.shape[2]
        all_k, all_v = self.k[layer], self.v[layer]
        all_k[:, :, start:end] = k
        all_v[:, :, start:end] = v
        return all_k[:, :, :end], all_v[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in this order (beam search moves its beams around)."""
        self.k, self.v, self.idx = [k[rows] for k in self.k], [v[rows] for v in self.v], self.idx[rows]


class CausalSelfAttention(nn.Module):
    """Every token looks back at the tokens before it and at itself, and mixes in what it finds."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # Q, K, V at once
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(config.head_dim, eps=1e-5)
            self.k_norm = nn.RMSNorm(config.head_dim, eps=1e-5)
        if config.position == "rope":
            angles = rope_angles(config.block_size, config.head_dim)
            self.register_buffer("cos", angles.cos(), persistent=False)  # (block_size, D / 2)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def qkv(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values `(B, H, T, D)` of `x (B, T, C)`, whose first token stands at position `start`."""
        B, T, _ = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.config.n_head, self.config.head_dim)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.config.position == "rope":
            cos, sin = self.cos[start : start + T], self.sin[start : start + T]
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return q, k, v

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        B, T, C = x.shape
        past = cache.length if cache else 0
        q, k, v = self.qkv(x, past)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        # One new token may look at everything stored. Several new tokens behind a past need their own mask.
        mask = causal_mask(T, past, x.device) if past and T > 1 else None
        dropout = self.config.dropout if self.training else 0.0
        causal = not past and T > 1
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        y = self.c_proj(y)
        return self.resid_dropout(y) if self.training else y

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights `(B, H, T, T)`, which `forward` uses without ever storing them; rows sum to 1."""
        q, k, _ = self.qkv(x)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.config.head_dim)
        return scores.masked_fill(~causal_mask(x.shape[1], 0, x.device), -math.inf).softmax(dim=-1)


def causal_mask(T: int, past: int, device: torch.device) -> Tensor:
    """True where new token i may look at token j: j <= past + i. Shape `(T, past + T)`."""
    return torch.ones(T, past + T, dtype=torch.bool, device=device).tril(past)


class MLP(nn.Module):
    """What each token does with what attention brought it, alone: widen, bend, narrow."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        # A gate costs a third matrix; 8/3 instead of 4 times the width keeps the parameter count.
        hidden = round(8 * config.n_embd / 3) if self.gated else 4 * config.n_embd
        self.c_fc = nn.Linear(config.n_embd, (2 if self.gated else 1) * hidden, bias=config.bias)
        self.c_proj = nn.Linear(hidden, config.n_embd, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, value = self.c_fc(x).chunk(2, dim=-1)
            h = self.activation(gate) * value
        else:
            h = self.activation(self.c_fc(x))
        y = self.c_proj(h)
        return self.dropout(y) if self.training else y


class Block(nn.Module):
    """Attention, then MLP; each adds its result to the residual stream instead of replacing it."""

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.ln_1 = make_norm(config)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        if self.pre:  # GPT-2: the residual path itself is never normalized
            x = x + self.attn(self.ln_1(x), cache)
            return x + self.mlp(self.ln_2(x))
        x = self.ln_1(x + self.attn(x, cache))  # the original Transformer and GPT-1
        return self.ln_2(x + self.mlp(x))


class GPT(nn.Module):
    """Token ids in, a score for every token of the vocabulary out: `model(idx (B, T)) -> logits (B, T, V)`.

    Position t of the output scores the token at t + 1 and has seen the tokens 0 … t and no others.
    """

    positions: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        parts: dict[str, nn.Module] = {"wte": nn.Embedding(config.vocab_size, config.n_embd)}
        if config.position == "learned":
            parts["wpe"] = nn.Embedding(config.block_size, config.n_embd)
        elif config.position == "sinusoidal":
            table = config.init_std * sinusoids(config.block_size, config.n_embd)  # as large as the learned ones
            self.register_buffer("positions", table, persistent=False)
        if config.ngram > 1:
            parts["ngrams"] = nn.ModuleList(NgramEmbedding(config, n) for n in range(2, config.ngram + 1))
        parts["drop"] = nn.Dropout(config.dropout)
        parts["h"] = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        parts["ln_f"] = make_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.transformer: Any = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.init_weights()
        if config.tie_weights:
            self.transformer["wte"].weight = self.lm_head.weight  # one matrix, two uses

    @torch.no_grad()
    def init_weights(self) -> None:
        """GPT-2's initialization: N(0, init_std), and less on the layers that write to the residual stream.

        2 * n_layer sublayers add up on that stream; 1 / sqrt of their number keeps its size at any depth.
        """
        std = self.config.init_std
        residual_std = std / math.sqrt(2 * self.config.n_layer)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes = name.endswith("c_proj")
                nn.init.normal_(module.weight, std=residual_std if writes else std)
                if writes and self.config.zero_init:
                    nn.init.zeros_(module.weight)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def embed(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token embedding plus position, `(B, T) -> (B, T, C)`; with a cache, `idx` continues its tokens."""
        start = cache.length if cache else 0
        if idx.ndim != 2 or idx.shape[1] < 1:
            raise CourseError(f"The model reads token ids of shape (B, T) with T at least 1, not {tuple(idx.shape)}.")
        T, limit = idx.shape[1], self.config.block_size
        if start + T > limit:
            raise CourseError(
                f"The model reads at most {limit} tokens (block_size), not {start + T}: "
                f"keep the last ones with idx[:, -{limit}:], or build it with a larger block_size."
            )
        x = self.transformer["wte"](idx)
        if self.config.position == "learned":
            x = x + self.transformer["wpe"].weight[start : start + T]
        elif self.config.position == "sinusoidal":
            x = x + self.positions[start : start + T]
        if self.config.ngram > 1:
            if cache is not None:  # the last tokens before these belong to their n-grams
                cache.idx[:, start : start + T] = idx
                idx = cache.idx[:, max(0, start + 1 - self.config.ngram) : start + T]
            for ngram in self.transformer["ngrams"]:
                x = x + ngram(idx)[:, -T:]
        return self.transformer["drop"](x) if self.training else x

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits `(B, T, V)` for `idx (B, T)`; with a cache, `idx` holds only the tokens it has not seen."""
        return self.lm_head(self.hidden(idx, cache))

    def hidden(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """What `lm_head` scores: the residual stream `(B, T, C)` after the last block and normalization."""
        x = self.embed(idx, cache)
        for block in self.transformer["h"]:
            x = block(x, cache)
        if cache is not None:
            cache.length += idx.shape[1]
        return self.transformer["ln_f"](x)

    def loss(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token; `idx` and `targets` are `(B, T)`, targets one step ahead."""
        return F.cross_entropy(self(idx).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def attention_maps(self, idx: Tensor) -> Tensor:
        """Attention weights of every layer and head for `idx (B, T)`: `(n_layer, B, H, T, T)`, for plots.

        Costs one extra forward pass here, so that training never pays for it.
        """
        x, maps = self.embed(idx), []
        for block in self.transformer["h"]:
            maps.append(block.attn.weights(block.ln_1(x) if block.pre else x))
            x = block(x)
        return torch.stack(maps)

    def num_params(self, non_embedding: bool = False) -> int:
        """Number of parameters, a tied matrix counted once; `non_embedding` leaves out the position table."""
        n = sum(p.numel() for p in self.parameters())
        if non_embedding and self.config.position == "learned":
            n -= self.config.block_size * self.config.n_embd
        return n

    @classmethod
    def from_hf(cls, source: Any = "gpt2") -> Self:
        """GPT-2 weights from the Hugging Face hub (`gpt2`, `gpt2-medium`, …), or from a `GPT2LMHeadModel`.

        Needs the extra: `pip install llmcourse[hub]`. Source of the weights: Radford et al. 2019.
        """
        try:
            from transformers import GPT2LMHeadModel
        except ImportError as e:
            raise CourseError("GPT-2's weights need transformers: pip install 'llmcourse[hub]'.") from e
        try:
            hf = GPT2LMHeadModel.from_pretrained(source) if isinstance(source, str) else source
        except OSError as e:
            raise CourseError(f"Could not load {source!r}: check the name, and the connection to the hub.") from e
        if not isinstance(hf, GPT2LMHeadModel):
            raise CourseError(f"Give a name on the hub or a GPT2LMHeadModel, not a {type(hf).__name__}.")
        c = hf.config
        plain: dict[str, Any] = {"n_inner": c.n_inner and 4 * c.n_embd}  # None also means 4 times the width
        plain |= {"layer_norm_epsilon": 1e-5, "scale_attn_weights": True}
        plain |= {"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
        different = [name for name in plain if getattr(c, name) != plain[name]]
        if c.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
            different.append("activation_function")
        if different:
            raise CourseError(f"This is not a plain GPT-2: its {', '.join(different)} differs.")
        shape = (c.vocab_size, c.n_positions, c.n_layer, c.n_head, c.n_embd)
        model = cls(GPTConfig(*shape, tie_weights=c.tie_word_embeddings))
        weights = hf.state_dict()
        for name in weights:  # GPT-2 stored its linear layers as Conv1D, input dimension first
            if name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight")):
                weights[name] = weights[name].t()
        model.load_state_dict(weights)
        return model

"""Checker of day 5, the count of a GPT's parameters.

A count is judged by how it reacts: one more token, one more position, one more layer, another number of heads, one
switch turned. Each answer must be a known polynomial of C, and what it is off by, written as a C² + b C, tells the
mistake: C² is a square matrix, C a bias, a gain or a row of a table.
"""

import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..model import GPTConfig
from . import Wrong, exercise

Count = Callable[[GPTConfig], Any]
V, T, L, H, C = 101, 37, 3, 4, 96  # C is a multiple of 3, so that 8 C / 3 is whole; nothing equals anything else
PLAIN = GPTConfig(vocab_size=V, block_size=T, n_layer=L, n_head=H, n_embd=C)


def count_parameters(config: GPTConfig) -> int:
    """Number of parameters of `GPT(config)`, from its settings alone."""
    c, C, bias = config, config.n_embd, int(config.bias)
    tables = c.vocab_size * C * (1 if c.tie_weights else 2)  # a tied head is the token table
    if c.position == "learned":
        tables += c.block_size * C
    attention = 4 * C * C + bias * 4 * C
    if c.qk_norm:
        attention += 2 * c.head_dim  # gains for queries and keys, shared by all heads
    if c.activation == "swiglu":
        h = round(8 * C / 3)
        mlp = 3 * C * h + bias * (2 * h + C)
    else:
        mlp = 8 * C * C + bias * 5 * C
    norm = {"layernorm": (1 + bias) * C, "rmsnorm": C, "none": 0}[c.norm]
    last = norm if c.norm_position == "pre" else 0
    return tables + c.n_layer * (attention + mlp + 2 * norm) + last


@exercise(
    "day05",
    title="The exact count",
    signature="count_parameters(config)",
    hints=[
        "Start with GPT-2's own switches, as in count() on the page: tables V C + T C, blocks of 12 C² and some, and "
        "the last norm. Then turn one switch at a time, in the order of the table.",
        "Each switch touches one term only: tie_weights and position the tables, bias and norm the crumbs of C, "
        "activation the MLP (with h = round(8 * C / 3): C * 2h + h * C, biases 2h + C), qk_norm the attention "
        "(2 * config.head_dim a block).",
        "A norm is C gains; a LayerNorm has C biases as well if config.bias, an RMSNorm never, and norm='none' has "
        "nothing at all. With norm_position='post' there are two a block and none at the end.",
    ],
    solution=count_parameters,
    right="Exact for GPT-2 and with every switch turned; 124,439,808 for the default.",
)
def check_count_parameters(learner: Count) -> None:
    got = counted(learner, PLAIN)
    check_growth(learner, got)
    if error := got - count_parameters(PLAIN):
        raise Wrong(outside_of_blocks(error))
    check_switches(learner)
    check_together(learner)


def counted(learner: Count, config: GPTConfig) -> int:
    """What the learner's function returns, if it is one whole number."""
    value = learner(config)
    if value is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(value, dict):
        raise Wrong("Your function returned a dict of components: return their sum, one whole number.")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise Wrong(f"Your function returned something of type {type(value).__name__}: return one whole number.")
    whole = int(value)  # type: ignore[call-overload]  # numbers.Real promises it, its type stub does not
    if value != whole:
        raise Wrong(f"Your count is {value}, and there is no part of a parameter: use // or round, not /.")
    return whole


def split(error: int) -> tuple[int, int]:
    """`error` as a C² + b C, with b as small as possible; a rest below C is lost."""
    a = round(error / (C * C))
    return a, round((error - a * C * C) / C)


def check_growth(learner: Count, got: int) -> None:
    """How the count of GPT-2's shape grows with one token, one position, one layer, and other heads."""
    if got == 124_439_808:
        raise Wrong("Your function returns GPT-2 small's number for any configuration: use the settings of config.")
    rows = counted(learner, replace(PLAIN, vocab_size=V + 1)) - got
    if rows == 0:
        raise Wrong("A larger vocabulary changes nothing in your count: the token table has a row for each token.")
    if rows == 2 * C:
        raise Wrong(
            "With tie_weights=True one more token adds two rows in your count: the head is the token table then, and "
            "counts once."
        )
    if rows != C:
        raise Wrong(
            f"One more token should add one row of n_embd = {C} numbers; in your count it adds {rows:,}. Does the head "
            "have a bias, or the table stand in every layer?"
        )
    rows = counted(learner, replace(PLAIN, block_size=T + 1)) - got
    if rows == 0:
        raise Wrong("A larger block_size changes nothing: learned positions are a table with block_size rows.")
    if rows != C:
        raise Wrong(f"One more position should add one row of n_embd = {C} numbers; in your count it adds {rows:,}.")
    if counted(learner, replace(PLAIN, n_head=2 * H)) != got:
        raise Wrong("Your count depends on n_head: the heads share the same matrices, so their number changes nothing.")
    check_block(counted(learner, replace(PLAIN, n_layer=L + 1)) - got)


BLOCK = {
    (-1, 0): "attention has four C × C matrices: query, key, value, and c_proj, which mixes the heads' results",
    (-3, 0): "query, key and value are three matrices (c_attn is C × 3C), not one",
    (-4, 0): "the MLP has two matrices of 4 C²: the way up and the way back",
    (-6, 0): "the MLP is 4 times as wide as the block: up C × 4C, and back",
    (-8, 0): "the MLP is missing",
    (4, 0): "the MLP's matrices are C × 4C and 4C × C, 8 C² together; attention's are 4 C²",
    (0, -9): "the biases of the linear layers are missing, 4 C in attention and 5 C in the MLP",
    (0, -13): "only the matrices are there: add the biases (9 C) and two norms with gain and bias (4 C)",
    (0, -11): "the biases are missing, those of the norms too: bias=True gives one to every linear layer and LayerNorm",
    (0, -4): "two norms are missing, or the biases of attention: 3 C for c_attn, C for c_proj, and 4 C for two norms",
    (0, -2): "a block has two norms, each with C gains and C biases",
    (0, -5): "the MLP's biases are missing: 4 C on the way up and C on the way back",
    (0, -3): "a bias is too short: c_attn has 3 C of them, and c_fc has 4 C",
    (0, -1): "one bias is missing: c_proj has C of them, in attention and in the MLP",
    (0, 3): "the MLP's last bias has C numbers, one for each output, not 4 C",
}


def check_block(block: int) -> None:
    """The parameters that one more layer adds: 12 C² + 13 C."""
    if block == 0:
        raise Wrong("More layers change nothing in your count: the blocks count n_layer times.")
    if block > 12 * C * C + 13 * C + min(V, T) * C // 2 and (block - 12 * C * C - 13 * C) % (T * C) == 0:
        raise Wrong("One more layer also adds a table in your count: the tables stand outside of the blocks.")
    if (error := split(block - 12 * C * C - 13 * C)) != (0, 0):
        told = BLOCK.get(error) or f"look at its terms in C² (off by {error[0]}) and in C (off by {error[1]})"
        raise Wrong(
            f"With bias=True a block should have 12 C² + 13 C parameters, yours has {block:,} at C = {C}: {told}."
        )


def outside_of_blocks(error: int) -> str:
    """The mistake of a count that grows as it should and is still off by `error`."""
    told = {
        -2 * C: "the norm after the last block is missing: C gains and C biases",
        -C: "the norm after the last block has C gains and also C biases",
        2 * C: "there is one norm too many outside of the blocks; GPT-2 has one, after the last block",
        -T * C: "the table of positions is missing",
    }
    rest = told.get(error, f"what stands outside of the blocks is off by {error:+,}")
    return f"Tables and blocks grow as they should, but {rest}."


SWITCHES: dict[str, dict[str, Any]] = {
    "tie_weights=False": {"tie_weights": False},
    "bias=False": {"bias": False},
    'position="rope"': {"position": "rope"},
    'position="sinusoidal"': {"position": "sinusoidal"},
    'position="none"': {"position": "none"},
    'norm="rmsnorm"': {"norm": "rmsnorm"},
    'norm="none"': {"norm": "none"},
    'norm_position="post"': {"norm_position": "post"},
    'activation="relu2"': {"activation": "relu2"},
    'activation="swiglu"': {"activation": "swiglu"},
    "qk_norm=True": {"qk_norm": True},
}


def check_switches(learner: Count) -> None:
    """One switch at a time, from GPT-2's shape."""
    for name, change in SWITCHES.items():
        config = replace(PLAIN, **change)
        got, right = counted(learner, config), count_parameters(config)
        if got == right:
            continue
        if got == count_parameters(PLAIN):
            raise Wrong(f"{name} changes nothing in your count; it should change it by {right - got:+,} here.")
        told = why(name, got - right) or "see what the table says about it"
        raise Wrong(f"It is right for GPT-2's switches, but off by {got - right:+,} with {name}: {told}.")


def why(name: str, error: int) -> str | None:
    """What a count that is off by `error` has got wrong about this switch."""
    n = 2 * L + 1  # norms
    if name.startswith("position"):
        return "only learned positions have a table; the others are computed" if error > 0 else None
    if name.startswith("activation") and "swiglu" in name:
        h = 8 * C // 3
        return {
            -L * C * h: "the gated MLP has three matrices' worth, since c_fc makes 2h numbers: 2 C h + h C",
            -L * (C * h + h): "c_fc makes 2h numbers: 2 C h weights and 2h biases",
            -L * h: "c_fc has 2h biases, one for each number it makes",
            L * 4 * C * C: "its width is h = round(8 * C / 3), not 4 C",
            L * (4 * C * C + 2 * (4 * C - h)): "its width is h = round(8 * C / 3), not 4 C",
            -L * (2 * h + C): "with bias=True its linear layers have biases, 2h + C",
        }.get(error)
    return {
        ("tie_weights=False", -V * C): "the head has its own matrix then",
        ("tie_weights=False", V): "the head never has a bias",
        ("bias=False", L * 9 * C): "the linear layers lose theirs too",
        ("bias=False", n * C): "LayerNorm loses its biases too",
        ("bias=False", -n * C): "LayerNorm keeps its gains",
        ("bias=False", C): "the norm after the last block loses its biases too",
        ("bias=False", 2 * L * C): "the two norms of each block lose their biases too",
        ('norm="rmsnorm"', n * C): "an RMSNorm has gains and never biases, whatever bias says",
        ('norm="rmsnorm"', C): "the norm after the last block is an RMSNorm too, without biases",
        ('norm="rmsnorm"', -n * C): "an RMSNorm has C gains",
        ('norm="none"', n * C): "there is no norm, so nothing of it",
        ('norm="none"', C): "the norm after the last block goes too",
        ('norm="none"', 2 * C): "the norm after the last block goes too",
        ('norm_position="post"', -2 * C * 2 * L): "each block keeps its two norms; only the one at the end goes",
        ("qk_norm=True", L * 2 * (C - C // H)): "its norms run over one head, config.head_dim numbers, not C",
        ("qk_norm=True", -L * (C // H)): "there are two of them, one for the queries and one for the keys",
        ("qk_norm=True", L * 2 * (C // H)): "they are RMSNorms: gains and never biases",
        ("qk_norm=True", -(L - 1) * 2 * (C // H)): "every block has its own two",
    }.get((name, error))


def check_together(learner: Count) -> None:
    """Switches that meet each other, and a width at which 8 C / 3 is not whole."""
    pairs: list[tuple[str, dict[str, Any]]] = [
        ("n_embd=100 and swiglu", {"n_embd": 100, "activation": "swiglu"}),
        ("swiglu and bias=False", {"activation": "swiglu", "bias": False}),
        ("rmsnorm and bias=False", {"norm": "rmsnorm", "bias": False}),
        ("rmsnorm, post", {"norm": "rmsnorm", "norm_position": "post"}),
        ("no norm, post", {"norm": "none", "norm_position": "post"}),
        ("qk_norm and no norm", {"qk_norm": True, "norm": "none"}),
        ("qk_norm and bias=False", {"qk_norm": True, "bias": False}),
        ("untied, rope, no bias", {"tie_weights": False, "position": "rope", "bias": False}),
        ("one layer, one head", {"n_layer": 1, "n_head": 1}),
    ]
    for name, change in pairs:
        config = replace(PLAIN, **change)
        if error := counted(learner, config) - count_parameters(config):
            extra = ": h = round(8 * C / 3), rounded, not cut" if name.startswith("n_embd=100") else ""
            raise Wrong(f"Each switch alone is right, but together, {name}, the count is off by {error:+,}{extra}.")
    if (got := counted(learner, GPTConfig())) != 124_439_808:
        raise Wrong(
            f"Small models are right, but for GPT-2 small it gives {got:,} instead of 124,439,808: is a size typed in?"
        )

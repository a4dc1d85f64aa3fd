"""How good is a model? One number: the mean loss over a whole text, every token scored once.

Sampling a few batches gives a different answer each time. Here the text is read from beginning to end, so two
models, or two moments of one training run, can be compared to the last digit. The other functions look at token
ids before they are used: a wrong id found here is a sentence, found inside the model it is a riddle.
"""

import math
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .data import TextDataset, Tokens
from .device import precision_policy
from .errors import CourseError, check_number
from .model import GPT


@torch.no_grad()
def evaluate(
    model: GPT,
    data: Tokens,
    block_size: int | None = None,
    batch_size: int | None = None,
    precision: str = "auto",
) -> float:
    """Exact mean loss in nats per token over all of `data` (N,), each token after the first scored once.

    The data is read in windows of `block_size` side by side (the last one may be shorter), so the number has
    no sampling noise. `batch_size` windows go through the model at once (default: up to 64, as memory allows)
    and do not change the result. Training mode is restored afterwards.
    """
    for name, number in (("block_size", block_size), ("batch_size", batch_size)):
        if number is not None:
            check_number(name, number, 1, math.inf, whole=True)
    T, V, device = block_size or model.config.block_size, model.config.vocab_size, model.lm_head.weight.device
    if len(data) < 2:
        raise CourseError(f"Evaluation needs at least 2 tokens, not {len(data)}: use a longer text.")
    data = checked_ids(data, V)
    rows = batch_size or max(1, min(64, 2**26 // (T * V)))  # at most 256 MiB of logits
    n = len(data) - 1  # tokens to score
    whole = n // T * T
    cuts = [(i, min(i + rows * T, whole), T) for i in range(0, whole, rows * T)]  # start, end, width of a window
    cuts += [(whole, n, n - whole)] if whole < n else []
    was_training, policy = model.training, precision_policy(device, precision)
    model.eval()
    total = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for start, end, width in cuts:
        ids = to_tensor(data[start : end + 1], device)
        with policy.autocast(device):
            logits = model(ids[:-1].view(-1, width))  # (rows, width, V)
        total += F.cross_entropy(logits.float().flatten(0, 1), ids[1:], reduction="sum")
    model.train(was_training)
    return total.item() / n


def checked_ids(data: Tokens, vocab_size: int, least: int = 2) -> Tokens:
    """`data` (N,), if it is a row of at least `least` whole numbers from 0 to `vocab_size` - 1; else a CourseError."""
    ids = TextDataset(data, least - 1).ids
    ids = ids.long() if isinstance(ids, Tensor) else ids  # torch cannot compare its 16-bit numbers
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise CourseError(
            f"The data holds token {low if low < 0 else high}, but the model knows the tokens 0 to {vocab_size - 1}: "
            "use the tokenizer that the model was made for."
        )
    return ids


def to_tensor(ids: Tokens, device: torch.device) -> Tensor:
    """Token ids of any kind as int64 on `device`."""
    return torch.as_tensor(ids if isinstance(ids, Tensor) else ids.astype(np.int64)).to(device, torch.int64)


def fingerprint(data: Tokens) -> int:
    """A number by which a resumed run knows its data again: the checksum of all ids, whatever they are stored in."""
    checksum, cpu = 0, torch.device("cpu")
    for i in range(0, len(data), 2**20):
        checksum = zlib.crc32(to_tensor(data[i : i + 2**20], cpu).numpy().tobytes(), checksum)
    return checksum

"""Day 17: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmcourse import device
from llmcourse.checks import check

Say = Callable[[], str]
Capability = tuple[int, int] | None
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


def by_tuple(device_type: str, capability: Capability) -> Any:
    if device_type != "cuda":
        return FP32, False
    assert capability is not None
    return (BF16, False) if capability >= (8, 0) else (FP16, True)


def by_major(device_type: str, capability: Capability) -> Any:
    if device_type in ("cpu", "mps"):
        return [FP32, False]
    assert capability is not None
    major, _minor = capability
    dtype = BF16 if major >= 8 else FP16
    return [dtype, dtype == FP16]


def by_package(device_type: str, capability: Capability) -> Any:
    found = device.precision_policy(torch.device(device_type), capability=capability)
    return found.dtype, found.scale


def by_number(device_type: str, capability: Capability) -> Any:
    number = 10 * capability[0] + capability[1] if capability and device_type == "cuda" else None
    if number is None:
        return FP32, False
    return (FP16, True) if number < 80 else (BF16, False)


@pytest.mark.parametrize("learner", [by_tuple, by_major, by_package, by_number])
def test_policy_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day17", learner), said()
    assert said().startswith("day17: right. ")


def cuda_only(choose: Callable[[tuple[int, int]], Any]) -> Callable[[str, Capability], Any]:
    """Right outside CUDA, and `choose` on it."""

    def policy(device_type: str, capability: Capability) -> Any:
        return choose(capability) if device_type == "cuda" and capability else (FP32, False)

    return policy


def bf16_where(test: Callable[[tuple[int, int]], bool]) -> Callable[[str, Capability], Any]:
    return cuda_only(lambda c: (BF16, False) if test(c) else (FP16, True))


def ignores_type(device_type: str, capability: Capability) -> Any:
    return (BF16, False) if capability >= (8, 0) else (FP16, True)  # type: ignore[operator]


WRONG_POLICY: dict[str, tuple[Callable[..., Any], str]] = {
    "asks this machine": (
        cuda_only(lambda c: (BF16, False) if torch.cuda.is_bf16_supported() else (FP16, True)),
        "You ask PyTorch about the GPU of this machine",
    ),
    "capability of a CPU": (ignores_type, "there is no capability to look at"),
    "fp16 on the CPU": (lambda d, c: by_tuple(d, c) if d == "cuda" else (FP16, True), "On cpu you compute in fp16"),
    "bf16 on MPS": (lambda d, c: (BF16, False) if d == "mps" else by_tuple(d, c), "On mps you compute in bf16"),
    "scaler on the CPU": (lambda d, c: by_tuple(d, c) if d == "cuda" else (FP32, True), "On cpu you ask for a scaler"),
    "always fp32": (lambda d, c: (FP32, False), "On every CUDA chip you stay in fp32"),
    "always bf16": (cuda_only(lambda c: (BF16, False)), "bf16 on every CUDA chip"),
    "always fp16": (cuda_only(lambda c: (FP16, True)), "fp16 on every CUDA chip"),
    "T4 rounded up": (bf16_where(lambda c: c >= (7, 5)), "7.5 is not rounded up"),
    "from 7 on, below 8 only": (bf16_where(lambda c: c < (8, 0)), "the comparison is the wrong way round"),
    "minor number": (bf16_where(lambda c: c[1] == 0), "looks at the second number alone"),
    "fp32 on a T4": (cuda_only(lambda c: (BF16, False) if c >= (8, 0) else (FP32, False)), "Chips below 8.0 get fp32"),
    "equal": (bf16_where(lambda c: c == (8, 0)), "instead of =="),
    "strictly above": (bf16_where(lambda c: c > (8, 0)), "and not >"),
    "major above 8": (bf16_where(lambda c: c[0] > 8), "yours begins at 9"),
    "as text": (bf16_where(lambda c: f"{c[0]}.{c[1]}" >= "8.0"), "as text"),
    "major equals 8": (bf16_where(lambda c: c[0] == 8), "Chips from (9, 0) on"),
    "limit of another chip": (bf16_where(lambda c: c >= (8, 9)), "An A100 with (8, 0) gets no bf16, but"),
    "no scaler": (cuda_only(lambda c: (BF16 if c >= (8, 0) else FP16, False)), "fp16 without a scaler"),
    "scaler with bf16": (cuda_only(lambda c: (BF16 if c >= (8, 0) else FP16, True)), "a scaler with bf16"),
    "None": (lambda d, c: None, "returned None"),
    "dtype alone": (lambda d, c: by_tuple(d, c)[0], "the dtype alone"),
    "no pair": (lambda d, c: "bf16", "not a str"),
    "swapped": (lambda d, c: by_tuple(d, c)[::-1], "changed places"),
    "text": (lambda d, c: ("float32", False), "The dtype is a text"),
    "another dtype": (lambda d, c: (torch.float64, False), "The first of your results"),
    "no truth value": (lambda d, c: (FP32, 0), "should be True or False"),
}


@pytest.mark.parametrize("mistake", WRONG_POLICY)
def test_policy_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day17", WRONG_POLICY, mistake)


def test_policy_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day17", WRONG_POLICY, least=14)


def by_if() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def by_list() -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return torch.device(next(name for name, yes in there.items() if yes))


def with_number() -> torch.device:
    return torch.device("cuda:0") if torch.cuda.device_count() else by_if()


@pytest.mark.parametrize("learner", [by_if, by_list, with_number, device.pick_device, lambda: by_if()])
def test_best_device_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day17b", learner), said()
    assert said().startswith("day17b: right. ")


def cuda() -> bool:
    return torch.cuda.is_available()


def mps() -> bool:
    return torch.backends.mps.is_available()


def mac_first() -> torch.device:
    return torch.device("mps" if mps() else "cuda" if cuda() else "cpu")


def compiled_in() -> torch.device:
    return torch.device("cuda" if cuda() else "mps" if torch.backends.mps.is_built() else "cpu")


def compiled_cuda() -> torch.device:
    return torch.device("cuda" if torch.backends.cuda.is_built() else "mps" if mps() else "cpu")


def no_last_branch() -> torch.device | None:
    if cuda():
        return torch.device("cuda")
    return torch.device("mps") if mps() else None


def fails_without() -> torch.device:
    if not (cuda() or mps()):
        raise RuntimeError("buy a GPU")
    return by_if()


WRONG_DEVICE: dict[str, tuple[Callable[..., Any], str]] = {
    "mps first": (mac_first, "cuda comes before mps"),
    "is_built of mps": (compiled_in, "its code being built in is no Mac"),
    "is_built of cuda": (compiled_cuda, "is_built() tells what was compiled in"),
    "not turned round": (lambda: torch.device("cpu" if cuda() else "mps" if mps() else "cuda"), "the wrong way round?"),
    "always the CPU": (lambda: torch.device("cpu"), "on every machine"),
    "no mps": (lambda: torch.device("cuda" if cuda() else "cpu"), "mps comes before the CPU"),
    "no cuda": (lambda: torch.device("mps" if mps() else "cpu"), "cuda is the first choice"),
    "text": (lambda: by_if().type, "You return the text"),
    "nothing": (no_last_branch, "for one of the machines"),
    "second GPU": (lambda: torch.device("cuda:1") if cuda() else by_if(), "no such number"),
    "a tensor": (lambda: torch.ones(1), "Return a torch.device, not a Tensor"),
    "fails without a GPU": (fails_without, "It fails on some machines"),
}


@pytest.mark.parametrize("mistake", WRONG_DEVICE)
def test_best_device_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day17b", WRONG_DEVICE, mistake)


def test_best_device_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day17b", WRONG_DEVICE, least=10)


def test_pytorch_is_left_as_it_was() -> None:
    before = torch.cuda.is_available, torch.backends.mps.is_available, torch.cuda.device_count
    check("day17b", by_if)
    assert before == (torch.cuda.is_available, torch.backends.mps.is_available, torch.cuda.device_count)

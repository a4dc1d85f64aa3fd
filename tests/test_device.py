"""Which device, which precision, how much work."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from llmcourse import device
from llmcourse.device import (
    PRECISIONS,
    budget,
    describe,
    join_process_group,
    pick_device,
    precision_policy,
    random_state,
    seconds_per_call,
    set_random_state,
)  # fmt: skip
from llmcourse.errors import CourseError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def machine(monkeypatch):
    """Pretend that this machine has some GPUs, or Apple's, or neither."""

    def pretend(gpus: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    pretend()
    return pretend


@pytest.mark.parametrize("gpus, mps, best", [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_takes_the_best_device_there_is(machine, gpus, mps, best):
    machine(gpus, mps)
    assert pick_device() == pick_device("auto") == torch.device(best)
    assert budget(cpu=3, gpu=500) == (3 if best == "cpu" else 500)


def test_a_device_named_is_the_device_used(machine):
    machine(gpus=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert pick_device(name) == pick_device(torch.device(name)) == torch.device(name)
    assert budget(cpu="small", gpu="large", device="cpu") == "small"


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("gpu", "Device must be auto, cpu, cuda, cuda:N or mps, not 'gpu'."),
        ("", "Device must be auto, cpu, cuda, cuda:N or mps, not ''."),
        (None, "Device must be auto, cpu, cuda, cuda:N or mps, not 'None'."),
        ("cuda:x", "Device must be auto, cpu, cuda, cuda:N or mps, not 'cuda:x'."),
        ("cuda", "This machine has no device 'cuda'; use auto, or cpu."),
        ("mps", "This machine has no device 'mps'; use auto, or cpu."),
        ("meta", "This machine has no device 'meta'; use auto, or cpu."),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(machine, name, sentence):
    with pytest.raises(CourseError) as caught:
        pick_device(name)
    assert str(caught.value) == sentence


def test_a_gpu_beyond_the_last_one_is_one_sentence(machine):
    machine(gpus=2)
    with pytest.raises(CourseError, match=r"This machine has 2 CUDA device\(s\), so no 'cuda:2'\."):
        pick_device("cuda:2")


@pytest.mark.parametrize("capability, name", [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_the_compute_capability_decides_and_not_what_torch_claims(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **options: True)  # as on a T4
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    policy = precision_policy(CUDA)
    assert policy is precision_policy(CUDA, capability=capability) is PRECISIONS[name]
    assert policy.scale is (name == "fp16") and policy.dtype is {"fp16": torch.float16, "bf16": torch.bfloat16}[name]


def test_everything_else_computes_in_fp32():
    assert precision_policy(CPU).name == precision_policy(MPS).name == "fp32"
    assert precision_policy(CPU, "bf16").name == "bf16"
    assert precision_policy(CUDA, "fp32", capability=(9, 0)).name == "fp32"


@pytest.mark.parametrize("wanted, sentence", [("fp8", "must be auto, fp32, bf16, fp16"), ("fp16", "is for GPUs")])
def test_a_precision_that_cannot_be_is_one_sentence(wanted, sentence):
    with pytest.raises(CourseError, match=sentence):
        precision_policy(CPU, wanted)


def test_autocast_computes_products_in_the_policys_type():
    a = torch.ones(2, 2)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with PRECISIONS[name].autocast(CPU):
            assert (a @ a).dtype is dtype


def test_only_fp16_scales_its_gradients():
    assert not PRECISIONS["fp32"].scaler(CPU).is_enabled()
    assert not PRECISIONS["bf16"].scaler(CPU).is_enabled()
    assert PRECISIONS["fp16"].scaler(CPU).is_enabled()


def test_the_random_state_comes_back():
    before = random_state(CPU)
    first = torch.rand(5)
    set_random_state(CPU, before)
    assert torch.equal(torch.rand(5), first)
    set_random_state(CPU, before | {"cuda": torch.zeros(16, dtype=torch.uint8)})  # saved on a GPU, resumed on a CPU
    assert torch.equal(torch.rand(5), first)


def test_the_random_state_of_a_gpu_is_kept_as_well(monkeypatch):
    state = {}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda value, device: state.update({device: value}))
    set_random_state(torch.device("cuda:1"), random_state(torch.device("cuda:1")))
    assert state == {torch.device("cuda:1"): torch.tensor([7])}


def test_a_median_of_timings_leaves_the_warmup_out(monkeypatch):
    waits = iter([100, 100, 5, 1, 3])  # two of warmup, then three that count
    now = SimpleNamespace(value=0.0)
    monkeypatch.setattr(device.time, "perf_counter", lambda: now.value)

    def work() -> None:
        now.value += next(waits)

    assert seconds_per_call(work, CPU, repeats=3, warmup=2) == 3


def test_the_machine_describes_itself():
    facts = describe(CPU)
    assert facts["device"] == "cpu" and facts["name"] and facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__.split("+")[0] and "memory_gib" not in facts


def test_a_gpu_is_described_by_its_name_memory_and_capability(monkeypatch):
    t4 = SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: t4)
    facts = describe(CUDA)
    assert (facts["name"], facts["memory_gib"], facts["capability"]) == ("Tesla T4", 15.0, "7.5")


def test_one_process_joins_nothing(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join_process_group("cpu") == (0, 1, CPU)
    monkeypatch.setenv("WORLD_SIZE", "4")  # set by some schedulers; only torchrun sets LOCAL_RANK
    assert join_process_group("cpu") == (0, 1, CPU)


def test_more_processes_than_gpus_is_one_sentence(machine, monkeypatch):
    machine(gpus=2)
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    with pytest.raises(CourseError, match="2 CUDA device"):
        join_process_group("cuda")


def test_importing_the_module_asks_no_gpu_for_anything():
    code = "import torch, llmcourse.device; raise SystemExit(torch.cuda.is_initialized())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

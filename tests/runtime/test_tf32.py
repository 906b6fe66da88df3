"""What is set while TF32 is off; a GPU is not needed, because torch keeps the settings without one, too."""

import threading

import pytest
import torch
from random_models import random_model

from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.runtime.tf32 import without_tf32

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def allowed() -> tuple[bool, bool]:
    """Whether torch may use TF32 in convolutions and in matrix products."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(params=["default", "high"])
def setting(request):
    """What the caller allows."""
    if request.param == "high":
        torch.set_float32_matmul_precision("high")
    yield request.param
    torch.set_float32_matmul_precision("highest")


def test_it_is_off_inside_and_as_before_outside(setting):
    before = allowed()
    assert before == (True, setting == "high")
    with without_tf32(CUDA):
        assert exact()
    assert allowed() == before


def test_it_is_restored_after_an_error(setting):
    before = allowed()
    with pytest.raises(ZeroDivisionError), without_tf32(CUDA):
        raise ZeroDivisionError
    assert allowed() == before


def test_nothing_is_set_on_a_cpu(setting):
    before = allowed()
    with without_tf32(CPU):
        assert allowed() == before


def test_it_stays_off_until_the_last_thread_is_done():
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first():
        with without_tf32(CUDA):
            first_is_in.set()
            second_is_in.wait()
        first_is_out.set()

    before = allowed()
    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait()
    with without_tf32(CUDA):
        second_is_in.set()
        first_is_out.wait()
        assert exact()
    thread.join()
    assert allowed() == before


@pytest.mark.parametrize(("precision", "expected"), [("fp32", True), ("bf16", False)])
def test_extraction_in_single_precision_is_exact(precision, expected):
    extractor = NeuralExtractor(random_model("timm-cnn:resnet10t", "gem", None, 32), "random", CPU, precision)
    extractor.device, seen = CUDA, []  # the network stays on the CPU
    extractor.network.register_forward_hook(lambda *_: seen.append(exact()))
    extractor.extract_batch(torch.zeros(1, 3, 32, 32))
    assert seen == [expected]
    assert not exact()


def exact() -> bool:
    """Whether torch multiplies in full single precision."""
    if hasattr(torch.backends.cudnn, "conv"):
        found = {part.fp32_precision for part in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)}
        return found == {"ieee"}
    return allowed() == (False, False)

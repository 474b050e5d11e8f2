"""Forwards made ready: compiled for a shape, captured for a bucket, and eager until then."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from models.errors import CheckpointError
from models.runtime.aot import compile_package, load_package, package_path
from models.runtime.forward import Captured, Forward, RowFunction, buckets_up_to, fit_bucket

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of its parts among each other


class Recorded:
    """A capture without CUDA: static inputs, and an output that each replay overwrites."""

    def __init__(self, function: RowFunction, inputs: tuple[torch.Tensor, ...]) -> None:
        self._function = function
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._output = function(*self._inputs).clone()
        self.num_replays = 0

    def replay(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for static, tensor in zip(self._inputs, inputs, strict=True):
            assert static.shape == tensor.shape
            static.copy_(tensor)
        self.num_replays += 1
        return self._output.copy_(self._function(*self._inputs))


class RecordingCapturer:
    """Captures as `CudaGraphs` does, for machines without CUDA. Keeps what it captured."""

    def __init__(self) -> None:
        self.captured: list[Recorded] = []
        self.threads: set[int] = set()

    def capture(self, function: RowFunction, inputs: tuple[torch.Tensor, ...]) -> Captured:
        self.threads.add(threading.get_ident())
        self.captured.append(Recorded(function, inputs))
        return self.captured[-1]


class Blur(nn.Module):
    """A module over rows: [B, 3, h, w] and [B] to [B, 4, h, w]."""

    conv: nn.Conv2d
    level: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("level", torch.full((64,), 0.5), persistent=False)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        picture, gain = inputs
        blurred: torch.Tensor = self.conv(picture) * gain[:, None, None, None]
        return blurred + self.level.sum()


def rows(count: int, height: int = 8, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, height, width), torch.randn(count)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Packages of `Blur` by rows: 1, and 2 or more."""
    folder, module = tmp_path_factory.mktemp("packages"), Blur()
    paths = {}
    for count in (1, 2):
        paths[count] = package_path(folder, "blur", module, rows(count))
        compile_package(module, rows(count), paths[count])
    return paths


def test_the_least_bucket_that_holds_the_rows() -> None:
    """Rows fit the next bucket; more rows than any bucket, or no buckets, stay as they are."""
    buckets = (1, 2, 4, 8)
    assert [fit_bucket(count, buckets) for count in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 8, 9]
    assert fit_bucket(5, ()) == 5


def test_buckets_end_at_the_most_rows_of_a_forward() -> None:
    """A full batch is padded by no row, and no bucket is larger than a batch may be."""
    assert buckets_up_to(8, (1, 2, 4, 8, 16)) == (1, 2, 4, 8)
    assert buckets_up_to(5, (1, 2, 4, 8, 16)) == (1, 2, 4, 5)
    assert buckets_up_to(1, (1, 2, 4)) == (1,)
    assert buckets_up_to(32, (1, 2, 4)) == (1, 2, 4)
    assert buckets_up_to(4, ()) == ()


def test_captured_calls_copy_in_and_reuse_their_output() -> None:
    """A replay reads the inputs of its call, and each bucket has buffers of its own."""
    capturer, module = RecordingCapturer(), Blur()
    forward = Forward("blur", module)
    for count in (2, 1, 1):
        forward.capture(capturer, *rows(count))
    assert len(capturer.captured) == 2, "capturing twice is once"
    for inputs in (rows(1), rows(2), rows(2), rows(1)):
        torch.testing.assert_close(forward(*inputs), module(*inputs))
    assert [captured.num_replays for captured in capturer.captured] == [2, 2]
    other = rows(3)
    torch.testing.assert_close(forward(*other), module(*other))


@pytest.mark.slow
def test_a_package_equals_its_module_for_any_number_of_rows(packages: dict[int, Path]) -> None:
    """One package serves 2 rows and more, another one row: nothing is compiled for a number."""
    module = Blur()
    many, one = load_package(packages[2], module), load_package(packages[1], module)
    with torch.inference_mode():
        for count in (2, 3, 7, 15):
            inputs = rows(count)
            torch.testing.assert_close(many(*inputs), module(*inputs))
        torch.testing.assert_close(one(*(inputs := rows(1))), module(*inputs))


@pytest.mark.slow
def test_a_package_reads_the_weights_of_the_module_that_is_loaded(
    packages: dict[int, Path],
) -> None:
    """It holds no weights: another module's show, and what changes in place afterwards too."""
    module = Blur()
    module.conv.weight.data.mul_(3)
    run, inputs = load_package(packages[2], module), rows(2)
    with torch.inference_mode():
        torch.testing.assert_close(run(*inputs), module(*inputs))
        module.conv.weight.mul_(2)
        module.level.add_(1)
        torch.testing.assert_close(run(*inputs), module(*inputs))
    assert packages[2].stat().st_size < 2_000_000


def test_names_tell_architecture_shape_and_rows_apart(tmp_path: Path) -> None:
    """Equal architectures share a package; another shape, dtype or width has its own."""
    module, wider = Blur(), Blur()
    wider.conv = nn.Conv2d(3, 8, 3, padding=1)
    same = package_path(tmp_path, "blur", Blur(), rows(4))
    assert package_path(tmp_path, "blur", module, rows(2)) == same
    others = {
        package_path(tmp_path, "blur", module, rows(1)),
        package_path(tmp_path, "blur", module, rows(2, 8, 16)),
        package_path(tmp_path, "blur", module.to(torch.float64), rows(2)),
        package_path(tmp_path, "blur", wider, rows(2)),
        package_path(tmp_path, "other", Blur(), rows(2)),
    }
    assert len(others) == 5
    assert same not in others


@pytest.mark.slow
def test_a_package_that_others_may_write_is_not_loaded(packages: dict[int, Path]) -> None:
    """Packages are code: a file that anybody may have changed is refused, with the reason."""
    path = packages[1]
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o666)
    try:
        with pytest.raises(CheckpointError, match="owner alone"):
            load_package(path, Blur())
    finally:
        path.chmod(mode)


def test_a_graph_break_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """What is no whole graph cannot be compiled, and no half package stays behind."""

    class Broken(nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return inputs[0] * 2 if inputs[0].sum().item() > 0 else inputs[0]

    path = tmp_path / "broken.pt2"
    with pytest.raises(Exception, match="data-dependent"):
        compile_package(Broken(), (torch.ones(1, 3),), path)
    assert not list(tmp_path.iterdir())


def test_what_was_adopted_serves_its_shape_alone() -> None:
    """A compiled function takes the module's place for its shape, up to the rows it is for."""
    module = Blur()
    forward = Forward("blur", module)
    forward.adopt(lambda picture, _gain: torch.zeros_like(picture), *rows(2), most_rows=3)
    assert forward.is_compiled(*rows(5))
    assert not forward.is_compiled(*rows(1))
    assert not forward(*rows(3)).any()
    torch.testing.assert_close(forward(*(many := rows(4))), module(*many))
    torch.testing.assert_close(forward(*(inputs := rows(2, 8, 16))), module(*inputs))

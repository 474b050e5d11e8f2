"""A function of rows as fast as its device runs it: compiled by shape, captured by bucket.

A bucket is a number of rows that is made ready beforehand. Fewer rows are padded to the next one,
since a captured graph has its sizes for good. Until a shape is warm it runs eager, with equal
results: no request waits for a compile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from models.runtime.cpu_parallel import deal
from models.runtime.fp32_fallback import InFp32

RowFunction = Callable[..., torch.Tensor]
"""Tensors in, a tensor out, rows as the first dimension of each."""

Signature = tuple[tuple[torch.Size, torch.dtype], ...]

CUDA_BUCKETS = (1, 2, 4, 8, 16, 32, 64)

_WARM_UP_CALLS = 3  # before a capture, so that libraries have chosen their algorithms


def buckets_up_to(most: int, buckets: Sequence[int]) -> tuple[int, ...]:
    """Return the buckets of a shape of which `most` rows share a forward: larger ones are cut."""
    return tuple(sorted({min(bucket, most) for bucket in buckets}))


def fit_bucket(num_rows: int, buckets: Sequence[int]) -> int:
    """Return the least bucket that holds the rows; the rows themselves where none does."""
    return min((bucket for bucket in buckets if bucket >= num_rows), default=num_rows)


class Captured(Protocol):
    """A call with its sizes fixed."""

    def replay(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Run on `inputs`. What is returned is overwritten by the next replay."""
        ...


class Capturer(Protocol):
    """Makes captured calls."""

    def capture(self, function: RowFunction, inputs: tuple[torch.Tensor, ...]) -> Captured:
        """Capture a call with inputs like these."""
        ...


class CudaGraphs:
    """CUDA graphs of one device in one memory pool. Captures and replays on the same thread.

    The pool is shared: replays follow one another, so that what one needs in between may lie where
    the next one's does. Outputs stay where they are, as long as a `Captured` holds them.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._side_stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def capture(self, function: RowFunction, inputs: tuple[torch.Tensor, ...]) -> Captured:
        static = tuple(tensor.clone() for tensor in inputs)
        self._side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side_stream):
            for _ in range(_WARM_UP_CALLS):
                function(*static)
        torch.cuda.current_stream().wait_stream(self._side_stream)
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                output = function(*static)
        except Exception:
            torch.cuda.set_stream(stream)  # a capture that cannot end leaves its own stream current
            raise
        return _CapturedGraph(graph, static, output)


class _CapturedGraph:
    def __init__(
        self, graph: torch.cuda.CUDAGraph, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        self._graph, self._inputs, self._output = graph, inputs, output

    def replay(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        torch._foreach_copy_(list(self._inputs), list(inputs))  # one launch for all
        self._graph.replay()
        return self._output


@dataclass(frozen=True)
class _Compiled:
    function: RowFunction
    most_rows: int  # that it was compiled for


class Forward:
    """A module over rows, with what has been made ready for it. Called from one thread."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self._compiled: dict[Signature, _Compiled] = {}  # by the sizes of a row
        self._captured: dict[Signature, Captured] = {}  # by the sizes of all

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run on rows. What is returned is good until the next call with inputs of these sizes."""
        captured = self._captured.get(_signature(inputs))
        if captured:
            return captured.replay(inputs)
        function = self._function(inputs)
        if function is self.module and inputs[0].device.type == "cpu":
            return deal(function, inputs)
        return function(*inputs)

    def in_fp32(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the module itself on rows that overflow 16 bits, slowly, without a copy of it."""
        with InFp32():
            output: torch.Tensor = self.module(*inputs)
        return output

    def is_compiled(self, *inputs: torch.Tensor) -> bool:
        return _row_signature(inputs) in self._compiled

    def adopt(self, compiled: RowFunction, *inputs: torch.Tensor, most_rows: int) -> None:
        """Take what was compiled for inputs of these sizes, up to so many rows, for the module."""
        self._compiled[_row_signature(inputs)] = _Compiled(compiled, most_rows)

    def capture(self, capturer: Capturer, *inputs: torch.Tensor) -> None:
        """Capture a call with inputs of these sizes, on the thread that calls."""
        if _signature(inputs) not in self._captured:
            captured = capturer.capture(self._function(inputs), inputs)
            self._captured[_signature(inputs)] = captured

    def _function(self, inputs: tuple[torch.Tensor, ...]) -> RowFunction:
        compiled = self._compiled.get(_row_signature(inputs))
        if compiled is None or len(inputs[0]) > compiled.most_rows:
            return self.module
        return compiled.function


def _signature(inputs: tuple[torch.Tensor, ...]) -> Signature:
    return tuple((tensor.shape, tensor.dtype) for tensor in inputs)


def _row_signature(inputs: tuple[torch.Tensor, ...]) -> Signature:
    """Return the sizes of a row, and whether it is alone: one row is compiled by itself."""
    rows = min(len(inputs[0]), 2)
    return tuple((torch.Size((rows, *tensor.shape[1:])), tensor.dtype) for tensor in inputs)

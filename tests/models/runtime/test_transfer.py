"""Between host and device: on a CPU everything is there at once. CUDA's own way: `tests/gpu`."""

from __future__ import annotations

import torch

from models.runtime.packing import pack, unpack
from models.runtime.transfer import HostTransfer, to_device, transfer_of

CPU = torch.device("cpu")


def test_on_a_cpu_a_moment_has_come() -> None:
    """What was asked for is done; later moments are later."""
    transfer = transfer_of(CPU)
    assert isinstance(transfer, HostTransfer)
    first, second = transfer.moment(), transfer.moment()
    assert first.has_come()
    second.wait()
    assert 0 <= second.ms_since(first) < 1000


def test_values_and_dtype_arrive() -> None:
    """Of any layout, of none at all, and in the dtype that is asked for."""
    tensor = torch.arange(12.0).view(3, 4)
    for given in (tensor, tensor.T, tensor[:, ::2], tensor[:0]):
        arrived = to_device(given, CPU, torch.float16)
        assert arrived.dtype == torch.float16
        torch.testing.assert_close(arrived.float(), given)
    assert to_device(tensor, CPU).dtype == torch.float32


def test_a_packed_picture_is_unpacked_with_what_is_wrong_with_it() -> None:
    """Rows are told apart: latents that are no numbers or all equal, pixels that are no numbers."""
    latents, pixels = torch.randn(5, 4, 2, 2), torch.full((5, 16, 8, 3), 99.6)
    latents[1, 0, 0, 0] = float("nan")
    latents[2] = 3.0
    pixels[3, 5, 5, 1] = float("inf")
    pixels[4] = torch.tensor([-7.0, 300.0, 12.4])
    rows = [unpack(packed, 16, 8) for packed in pack(latents, pixels)]
    assert [(row.has_latents, row.has_pixels) for row in rows] == [
        (True, True),
        (False, True),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert rows[0].pixels.shape == (16, 8, 3)
    assert bool((rows[0].pixels == 100).all())
    assert rows[4].pixels[3, 3].tolist() == [0, 255, 12]

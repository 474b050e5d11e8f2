"""The memory that checkpoints take on a device, from headers and configs before loading.

Weights and adapters are counted; what pictures take besides is an estimate: at its peak, in the
decoder's last block, there are three copies of the activation in full resolution that comes from
the block before it, or five of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import psutil

from models.checkpoints.layout import components, read_index, read_json, weights_name
from models.checkpoints.safetensors_header import num_parameters, read_header
from models.errors import CheckpointError
from models.lora.parse import factor_shapes, plain_name

LARGEST_SIDE = 1024
"""Pixels on a side of the largest picture that is decoded; an upscale has tiles of 512."""

_COPIES_BEFORE, _COPIES_OWN = 3.5, 5.5
"""Measured with torch's allocator for decoders of 32 to 512 channels: 3.0 and 5.0; plus margin."""

_CGROUPS = Path("/sys/fs/cgroup")
_FP32_BYTES = 4


@dataclass(frozen=True)
class Need:
    """Bytes that a checkpoint takes."""

    weights_bytes: int
    adapters_bytes: int
    working_bytes: int  # for what is decoded at once; checkpoints take turns
    largest_module_bytes: int  # which passes through the host's memory on its way to a GPU

    @property
    def resident_bytes(self) -> int:
        """What it takes while it waits."""
        return self.weights_bytes + self.adapters_bytes


@dataclass(frozen=True)
class Footprint:
    """The files that determine a checkpoint's memory.

    `parts` are those that stand in for its own, or beside it; an LCM-LoRA takes nothing once it
    is fused. `adapters` are the LoRA files of its styles, whose layers have `num_slots` places.
    `num_pixels` are decoded at once, of one picture or several.
    """

    name: str  # as errors call it
    folder: Path
    parts: Mapping[str, Path] = field(default_factory=dict)
    adapters: Sequence[Path] = ()
    num_slots: int = 1
    num_pixels: int = LARGEST_SIDE**2

    def need(self, dtype_bytes: int) -> Need:
        """Return what it takes in a dtype. Raises CheckpointError for a file that is not whole."""
        index = read_index(self.folder, self.name)
        modules = {name: self.parts.get(name, self.folder / name) for name in components(index)}
        if "tiny" in self.parts:
            modules["tiny"] = self.parts["tiny"]
        sizes = {
            name: self._num_parameters(folder / weights_name(name))
            * self._bytes_each(name, dtype_bytes, is_sdxl="text_encoder_2" in modules)
            for name, folder in modules.items()
        }
        return Need(
            weights_bytes=sum(sizes.values()),
            adapters_bytes=self.num_slots * self._num_factors(modules) * dtype_bytes,
            working_bytes=_decoding_bytes(
                read_json(modules["vae"] / "config.json"),
                self._bytes_each("vae", dtype_bytes, is_sdxl="text_encoder_2" in modules),
                self.num_pixels,
            ),
            largest_module_bytes=max(sizes.values()),
        )

    def _num_parameters(self, path: Path) -> int:
        try:
            return num_parameters(path)
        except CheckpointError as error:
            raise CheckpointError(f"{self.name}: {error}") from error

    def _num_factors(self, modules: Mapping[str, Path]) -> int:
        """Return how many numbers a place for a LoRA holds: of all layers that any of them changes.

        All are padded to the largest rank. One that does not fit has no place, and one that is
        faulty is told of where it is loaded.
        """
        if not self.adapters:
            return 0
        known = {
            plain_name(f"{'' if root == 'unet' else f'{root}.'}{name.removesuffix('.weight')}")
            for root, folder in modules.items()
            for name in read_header(folder / weights_name(root))
        }
        widths: dict[str, int] = {}  # of each layer, in and out: what a rank of one takes
        largest = 0
        for path in self.adapters:
            try:
                shapes = factor_shapes(path)
            except CheckpointError:
                continue
            if shapes.keys() <= known or _is_sgm(shapes):
                widths |= {
                    name: (prod(down) + prod(up)) // down[0] for name, (down, up) in shapes.items()
                }
                largest = max([largest, *(down[0] for down, _ in shapes.values())])
        # Two namings of SDXL's blocks are of the same layers, mostly: they count once.
        others = sum(width for name, width in widths.items() if not _is_sgm((name,)))
        return largest * max(others, sum(widths.values()) - others)

    def _bytes_each(self, name: str, dtype_bytes: int, *, is_sdxl: bool) -> int:
        """Return the bytes of a number: SDXL's autoencoder stays in fp32 where 16 bits fail."""
        if name != "vae" or not is_sdxl:
            return dtype_bytes
        config = read_json(self.parts.get("vae", self.folder / "vae") / "config.json")
        return max(_FP32_BYTES, dtype_bytes) if config.get("force_upcast") else dtype_bytes


def free_host_bytes(cgroups: Path = _CGROUPS) -> int:
    """Return what this process can still take: of the machine, and of its container's limit."""
    machine_bytes: int = psutil.virtual_memory().available
    return min([machine_bytes, *_free_of_container(cgroups)])


def _free_of_container(cgroups: Path) -> Iterable[int]:
    """Yield what a memory limit of this container leaves, if it has one; caches can be dropped."""
    for limit, used, statistics, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            limit_bytes = int((cgroups / limit).read_text())
            used_bytes = int((cgroups / used).read_text())
            lines = (cgroups / statistics).read_text().splitlines()
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
        dropped = next((int(line.split()[1]) for line in lines if line.split()[0] == cache), 0)
        yield max(0, limit_bytes - used_bytes + dropped)


def _is_sgm(layers: Iterable[str]) -> bool:
    """Return whether layers are called as in the original code of SDXL."""
    return any("input_blocks" in name or "output_blocks" in name for name in layers)


def _decoding_bytes(config: Mapping[str, Any], bytes_each: int, num_pixels: int) -> int:
    """Return about what decoding so many pixels at once takes at its peak."""
    widths: list[int] = config.get("block_out_channels") or [64, 64]
    channels = max(_COPIES_OWN * widths[0], _COPIES_BEFORE * widths[min(1, len(widths) - 1)])
    if "decoder_block_out_channels" in config:  # an AutoencoderTiny, which keeps fewer copies
        channels = _COPIES_BEFORE * int(config["decoder_block_out_channels"][0])
    return round(channels * num_pixels) * bytes_each

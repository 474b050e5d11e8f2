"""Stage 1: the autoencoder, on crops of rendered scenes, dead leaves and 1/f noise.

An AutoencoderTiny (f8, 4 channels, no norms, so that colours do not shift with the picture's
size). Its latents are held to mean 0 and variance 1 by a penalty instead of a scaling factor
measured afterwards, and the decoder sees them with a little noise, which makes for a latent
space in which near pictures are near.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from tqdm import tqdm

from models.training.loop.checkpoint import Average, Budget, load_state, part, prefixed, save_state
from models.training.loop.fit import fit
from models.training.loop.precision import mixed
from models.training.scenes.renderers import DOODLE, PAINTERS, render
from models.training.scenes.scene import draw_scene
from models.training.scenes.textures import dead_leaves, pink_noise

CHANNELS = 32
CROP = 64
# Rendered sizes of the pool, and how many scenes of each in every style.
POOL = ((128, 48), (256, 32), (512, 9))
SHARES = (0.15, 0.35, 0.35, 0.15)  # of the crops: each rendered size, then leaves and noise
STYLES = (*PAINTERS, DOODLE)
POOL_SEED = 50_000_000
NOISE = 0.05  # on the latents that the decoder learns from
SHARPNESS = 0.1  # the weight of the slopes' loss, reached after a thousand steps
THUMBNAIL_GAIN = 3.5  # brings colours of 0..1 to about unit variance


def build_autoencoder() -> AutoencoderTiny:
    """Return one without blocks at the pictures' own size, and with two at half of it.

    One at either end took a fifth of a request's time on a processor without AVX-512, and was
    worth nothing, as was a third one at half the size, which took little: what four channels
    cannot keep, no block of the decoder's brings back.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(CHANNELS,) * 4,
        decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=(0, 2, 3, 3),
        num_decoder_blocks=(3, 3, 2, 0),
        latent_channels=4,
        scaling_factor=1.0,
    )


@torch.no_grad()
def start_as_thumbnail(model: AutoencoderTiny) -> None:
    """Set the weights so that the latents begin as a thumbnail and the decoder as its enlarging.

    Three of the channels carry red, green and blue through every layer: averaged over 2 x 2
    where the encoder strides, repeated where the decoder enlarges. The other channels start at
    random. A start at random everywhere stood at 15 dB for five minutes; this one begins
    at about 20 and has only the detail to learn.
    """
    for block in model.modules():
        if isinstance(block, AutoencoderTinyBlock):
            block.conv[4].weight.mul_(0.2)  # nearly the identity: its skip carries the picture
            block.conv[4].weight[:3] = 0
            block.conv[4].bias[:3] = 0
    encoder = [layer for layer in model.encoder.layers if isinstance(layer, nn.Conv2d)]
    decoder = [layer for layer in model.decoder.layers if isinstance(layer, nn.Conv2d)]
    for conv in (*encoder, *decoder):
        conv.weight[:3] = 0
        if conv.bias is not None:
            conv.bias[:3] = 0
        for channel in range(3):
            if conv.stride[0] == 2:
                conv.weight[channel, channel, 1:, 1:] = 0.25
            else:
                conv.weight[channel, channel, 1, 1] = 1
    encoder[-1].weight[:3] *= THUMBNAIL_GAIN
    decoder[0].weight[:3] /= THUMBNAIL_GAIN
    for conv, offset in ((encoder[-1], -0.5 * THUMBNAIL_GAIN), (decoder[0], 0.5)):
        if conv.bias is not None:
            conv.bias[:3] = offset


def render_pool(seed: int, device: torch.device, scale: float = 1.0) -> list[Tensor]:
    """Return the pictures to crop from: uint8 [N, 3, S, S], one tensor a size."""
    pools = []
    for size, count in POOL:
        pictures = []
        many = max(1, round(count * scale))
        for index, style in enumerate(tqdm(STYLES, desc=f"pool {size}", mininterval=5)):
            scenes = [draw_scene(seed + index * many + k) for k in range(many)]
            for at in range(0, many, 16):
                batch = render(scenes[at : at + 16], style, (size, size), device)
                pictures.append((batch * 255).round().byte())
        pools.append(torch.cat(pictures))
        seed += 1000
    lot = torch.Generator().manual_seed(seed)
    many = max(8, round(200 * scale))
    wild = torch.cat((dead_leaves(many, 192, lot), pink_noise(many, 192, lot)))
    pools.append((wild * 255).round().byte().to(device))
    return pools


def draw_crops(pools: list[Tensor], count: int, lot: torch.Generator) -> Tensor:
    """Return random crops [count, 3, CROP, CROP] in -1..1, some mirrored or turned."""
    which = torch.multinomial(torch.tensor(SHARES), count, replacement=True, generator=lot)
    crops = []
    for index in which.tolist():
        pool = pools[index]
        room = pool.shape[-1] - CROP + 1
        row, top, left, turn = torch.rand(4, generator=lot).tolist()
        y, x = int(top * room), int(left * room)
        crop = pool[int(row * len(pool)), :, y : y + CROP, x : x + CROP]
        if turn < 0.5:
            crop = crop.flip(-1)
        crops.append(crop if turn < 0.75 else crop.transpose(-1, -2))
    return torch.stack(crops).float() / 127.5 - 1


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def reconstruction_loss(output: Tensor, target: Tensor, sharpness: float) -> Tensor:
    """Return squared and absolute error of colours, and of slopes weighed by `sharpness`.

    The slopes' term is kept small at first: a net that knows nothing yet would please it best
    by painting no slopes at all, and stays there for minutes.
    """
    loss = F.mse_loss(output, target) * 4 + F.l1_loss(output, target) * 0.2
    for a, b in zip(_slopes(output), _slopes(target), strict=True):
        loss = loss + sharpness * F.l1_loss(a, b)
    return loss


def moment_loss(latents: Tensor) -> Tensor:
    """Return how far each latent channel is from mean 0 and variance 1 over the batch."""
    mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return mean.square().mean() + (variance - 1).square().mean()


def psnr(a: Tensor, b: Tensor, span: float = 2.0) -> float:
    """Return the peak signal-to-noise ratio in dB of pictures whose values span `span`."""
    return 10 * math.log10(span**2 / max(F.mse_loss(a.float(), b.float()).item(), 1e-12))


class AutoencoderRun:
    """The autoencoder's training: from the saved state, or from a thumbnail."""

    name = "autoencoder"

    def __init__(
        self, folder: Path, device: torch.device, batch: int, rate: float, *, decoder_only: bool
    ) -> None:
        self.path = folder / "autoencoder.safetensors"
        self.device, self.batch, self.rate, self.seen = device, batch, rate, 0
        torch.manual_seed(0)
        self.model = build_autoencoder()
        start_as_thumbnail(self.model)
        state = None
        if self.path.exists():
            state, facts = load_state(self.path)
            self.model.load_state_dict(part(state, "weights."))
            self.seen = int(facts["seen"])
        self.model.to(device, memory_format=torch.channels_last)
        self.model.encoder.requires_grad_(not decoder_only)
        self.average = Average(self.model, 0.998)
        if state:
            self.average.restart(part(state, "average."), 300)
        self.pools = render_pool(POOL_SEED + self.seen * 31, device)
        self.lot = torch.Generator().manual_seed(self.seen + 1)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.99), weight_decay=0)
        self.sharpness = 0.0 if state is None else SHARPNESS

    def step(self, factor: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        crops = draw_crops(self.pools, self.batch, self.lot)
        crops = crops.to(self.device, memory_format=torch.channels_last)
        with mixed(self.device):
            latents = self.model.encode(crops).latents
            output = self.model.decode(latents + NOISE * torch.randn_like(latents)).sample
        self.sharpness = min(SHARPNESS, self.sharpness + SHARPNESS / 1000)
        loss = reconstruction_loss(output.float(), crops, self.sharpness)
        loss = loss + 0.02 * moment_loss(latents.float())
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.model)
        self.seen += self.batch
        return loss

    def save(self) -> None:
        tensors = prefixed("weights.", self.model.state_dict())
        save_state(self.path, tensors | prefixed("average.", self.average.shadow), seen=self.seen)


def train_autoencoder(
    folder: Path,
    *,
    device: torch.device,
    minutes: float,
    batch: int = 12,
    rate: float = 1e-3,
    decoder_only: bool = False,
) -> None:
    """Train for `minutes` from the saved state, or from nothing; write state to `folder`.

    `decoder_only` leaves the encoder, and with it every bank and every net that learned from
    its latents, as they are.
    """
    run = AutoencoderRun(folder, device, batch, rate, decoder_only=decoder_only)
    fit(run, Budget(minutes), save_every=200)


def load_autoencoder(folder: Path) -> AutoencoderTiny:
    """Return the averaged autoencoder in float32, in evaluation mode, without gradients."""
    state, _ = load_state(folder / "autoencoder.safetensors")
    model = build_autoencoder()
    model.load_state_dict(part(state, "average."))
    return model.eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature

"""Stage 1: the autoencoder, trained on crops of rendered scenes, dead leaves and 1/f noise.

An AutoencoderTiny (f8, 4 channels, no norms: colours do not shift with the size of the image). A
penalty keeps its latents at mean 0 and variance 1, instead of a scaling factor measured afterwards.
The decoder sees them with a little noise, which brings similar images close in latent space.
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

from models.training.loop.checkpoint import NetworkState, load_network
from models.training.loop.fit import optimizer_step
from models.training.loop.precision import mixed
from models.training.scenes.renderers import ALL_STYLES, render
from models.training.scenes.scene import draw_scene
from models.training.scenes.textures import dead_leaves, pink_noise

CHANNELS = 32
CROP = 64
POOL = ((128, 48), (256, 32), (512, 9))  # rendered sizes, and scenes of each in every style
SHARES = (0.15, 0.35, 0.35, 0.15)  # of the crops: each rendered size, then leaves and noise
POOL_SEED = 50_000_000
NOISE = 0.05  # on the latents that the decoder learns from
SHARPNESS = 0.1  # the weight of the gradient loss, reached after a thousand steps
THUMBNAIL_GAIN = 3.5  # scales colours of 0..1 to about unit variance


def build_autoencoder() -> AutoencoderTiny:
    """Return an autoencoder without blocks at full size and with two at half of it.

    A block at full size, at either end, took a fifth of a request's time on a processor without
    AVX-512 and improved nothing. A third block at half the size took little and improved nothing:
    the four channels are the limit, not the decoder.
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
    """Initialise the encoder as a thumbnail and the decoder as its enlargement.

    Three channels carry red, green and blue through every layer: averaged over 2 x 2 where the
    encoder strides, repeated where the decoder upsamples. The other channels start at random. From
    a random start the PSNR stayed at 15 dB for five minutes; this start begins at about 20.
    """
    for block in model.modules():
        if isinstance(block, AutoencoderTinyBlock):
            block.conv[4].weight.mul_(0.2)  # nearly the identity, through the skip connection
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


@torch.no_grad()
def encode(model: AutoencoderTiny, images: Tensor) -> Tensor:
    """Return latents [B, 4, h, w] in float32 of images [B, 3, H, W] in 0..1."""
    images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
    with mixed(images.device):
        latents: Tensor = model.encode(images).latents
    return latents.float().contiguous()


@torch.no_grad()
def decode(model: AutoencoderTiny, latents: Tensor) -> Tensor:
    """Return images [B, 3, H, W] in 0..1 of latents [B, 4, h, w]."""
    with mixed(latents.device):
        images: Tensor = model.decode(latents).sample
    return (images.float() / 2 + 0.5).clamp(0, 1)


def render_pool(seed: int, device: torch.device) -> list[Tensor]:
    """Return the images to crop from: uint8 [N, 3, S, S], one tensor a size."""
    pools = []
    for size, count in POOL:
        images = []
        for index, style in enumerate(tqdm(ALL_STYLES, desc=f"pool {size}", mininterval=5)):
            scenes = [draw_scene(seed + index * count + k) for k in range(count)]
            for start in range(0, count, 16):
                batch = render(scenes[start : start + 16], style, (size, size), device)
                images.append((batch * 255).round().byte())
        pools.append(torch.cat(images))
        seed += 1000
    rng = torch.Generator().manual_seed(seed)
    textures = torch.cat((dead_leaves(200, 192, rng), pink_noise(200, 192, rng)))
    pools.append((textures * 255).round().byte().to(device))
    return pools


def draw_crops(pools: list[Tensor], count: int, rng: torch.Generator) -> Tensor:
    """Return random crops [count, 3, CROP, CROP] in -1..1, some mirrored or transposed."""
    choice = torch.multinomial(torch.tensor(SHARES), count, replacement=True, generator=rng)
    crops = []
    for index in choice.tolist():
        pool = pools[index]
        room = pool.shape[-1] - CROP + 1
        row, top, left, turn = torch.rand(4, generator=rng).tolist()
        y, x = int(top * room), int(left * room)
        crop = pool[int(row * len(pool)), :, y : y + CROP, x : x + CROP]
        if turn < 0.5:
            crop = crop.flip(-1)
        crops.append(crop if turn < 0.75 else crop.transpose(-1, -2))
    return torch.stack(crops).float() / 127.5 - 1


def reconstruction_loss(output: Tensor, target: Tensor, sharpness: float) -> Tensor:
    """Return squared and absolute errors of colours, and of their gradients times `sharpness`.

    The weight of the gradients starts small. An untrained net minimises that term with a flat
    image, and stays there for minutes.
    """
    loss = F.mse_loss(output, target) * 4 + F.l1_loss(output, target) * 0.2
    for axis in (-2, -1):
        loss = loss + sharpness * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def moment_loss(latents: Tensor) -> Tensor:
    """Return how far each latent channel is from mean 0 and variance 1 over the batch."""
    mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return mean.square().mean() + (variance - 1).square().mean()


def psnr(a: Tensor, b: Tensor, span: float = 2.0) -> float:
    """Return the peak signal-to-noise ratio in dB of images whose values span `span`."""
    return 10 * math.log10(span**2 / max(F.mse_loss(a.float(), b.float()).item(), 1e-12))


class AutoencoderRun:
    """The autoencoder's training, from its state or from a thumbnail.

    `decoder_only` freezes the encoder: the data sets and nets made from its latents stay valid.
    """

    name = "autoencoder"

    def __init__(
        self, folder: Path, device: torch.device, rate: float = 1e-3, *, decoder_only: bool = False
    ) -> None:
        self.device, self.rate = device, rate
        self.batch_size = 12 if device.type == "cpu" else 256
        torch.manual_seed(0)
        self.model = build_autoencoder()
        start_as_thumbnail(self.model)
        self.state = NetworkState(folder / "autoencoder.safetensors", self.model)
        self.state.to(device)
        self.model.to(memory_format=torch.channels_last)
        self.model.encoder.requires_grad_(not decoder_only)
        self.pools = render_pool(POOL_SEED + self.seen * 31, device)
        self.rng = torch.Generator().manual_seed(self.seen + 1)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, betas=(0.9, 0.99), weight_decay=0)
        self.sharpness = SHARPNESS if self.state.is_resumed else 0.0

    @property
    def seen(self) -> int:
        return self.state.seen

    def step(self, factor: float) -> Tensor:
        crops = draw_crops(self.pools, self.batch_size, self.rng)
        crops = crops.to(self.device, memory_format=torch.channels_last)
        with mixed(self.device):
            latents = self.model.encode(crops).latents
            output = self.model.decode(latents + NOISE * torch.randn_like(latents)).sample
        self.sharpness = min(SHARPNESS, self.sharpness + SHARPNESS / 1000)
        loss = reconstruction_loss(output.float(), crops, self.sharpness)
        loss = loss + 0.02 * moment_loss(latents.float())
        optimizer_step(loss, self.optimizer, self.model, self.rate * factor)
        self.state.count(len(crops))
        return loss

    def save(self) -> None:
        self.state.save()


def load_autoencoder(folder: Path) -> AutoencoderTiny:
    """Return the averaged autoencoder in float32 for inference."""
    return load_network(folder / "autoencoder.safetensors", build_autoencoder())

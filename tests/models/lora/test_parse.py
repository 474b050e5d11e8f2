"""LoRA files of every naming mean the same, and what is not supported is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from models.errors import CheckpointError
from models.lora.parse import fuse, read_lora
from tests.support.engine_runs import load
from tests.support.loras import ATTENTION, EVERYWHERE, Naming, random_factors, write_lora

ALPHA = 2.0
NAMINGS: list[Naming] = ["peft", "diffusers", "diffusers-old", "kohya"]


@pytest.fixture(scope="module")
def roots(tiny_checkpoint: Path) -> dict[str, Any]:
    pipeline = load(tiny_checkpoint)
    return {"unet": pipeline.unet, "text_encoder": pipeline.prompts.encoders[0]}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_every_naming_means_the_same(
    naming: Naming, alpha: float | None, roots: dict[str, Any], tmp_path: Path
) -> None:
    """Layers, factors and alphas are those that were written, whatever they are called."""
    factors = random_factors(roots["unet"], EVERYWHERE)
    path = write_lora(tmp_path / "lora.safetensors", {"unet": factors}, naming, alpha)
    lora = read_lora(path, roots, weight=0.5)
    assert lora.keys() == {f"unet.{name}" for name in factors}
    scale = 0.5 * (1.0 if alpha is None else alpha / 4)
    for name, (down, up) in factors.items():
        torch.testing.assert_close(lora[f"unet.{name}"].down, down)
        torch.testing.assert_close(lora[f"unet.{name}"].up, scale * up.flatten(1))


@pytest.mark.parametrize("naming", ["diffusers", "kohya"])
def test_text_encoders_are_found(naming: Naming, roots: dict[str, Any], tmp_path: Path) -> None:
    """A LoRA of the text encoder belongs to it under either of its names."""
    factors = random_factors(roots["text_encoder"], ("q_proj", "fc1"))
    path = write_lora(tmp_path / "lora.safetensors", {"text_encoder": factors}, naming)
    assert read_lora(path, roots).keys() == {f"text_encoder.{name}" for name in factors}


def test_what_peft_saves_is_fused_as_peft_merges(roots: dict[str, Any], tmp_path: Path) -> None:
    """With patterns of rank and alpha, rank-stabilised, over convolutions: the same weights."""
    config = LoraConfig(
        r=4,
        lora_alpha=3,
        use_rslora=True,
        target_modules=["to_q", "to_out.0", "conv1", "proj_in", "proj_out"],
        rank_pattern={"to_q": 2},
        alpha_pattern={"attn2.to_q": 7},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    peft_model = get_peft_model(copy.deepcopy(roots["unet"]).requires_grad_(True), config)
    peft_model.save_pretrained(tmp_path)
    unet: UNet2DConditionModel = copy.deepcopy(roots["unet"])
    fused_roots = {"unet": unet}
    fuse(read_lora(tmp_path / "adapter_model.safetensors", fused_roots), fused_roots)
    merged = peft_model.merge_and_unload().state_dict()
    for name, weight in unet.state_dict().items():
        torch.testing.assert_close(weight, merged[name], atol=1e-6, rtol=1e-5)
    assert not torch.equal(unet.conv_in.weight, unet.conv_out.weight)


REFUSED = {
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_magnitude_vector": "DoRA",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale": "DoRA",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lokr_w1": "LoKr",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.hada_w1_a": "LoHa",
    "lora_unet_mid_block_resnets_0_conv1.lora_mid.weight": "a Tucker decomposition",
    "unet.conv_in.diff": "whole weights",
    "unet.conv_in.lora_B.bias": "a bias",
    "bundle_emb.cat.string_to_param": "an embedding",
    "unet.nowhere.lora_A.weight": "no layer unet.nowhere",
    "text_encoder_2.encoder.layers.0.mlp.fc1.lora_A.weight": "no layer text_encoder_2",
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    key: str, roots: dict[str, Any], tmp_path: Path
) -> None:
    """A file with anything else in it is not read in part: the error names the key."""
    path = tmp_path / "lora.safetensors"
    write_lora(path, {"unet": random_factors(roots["unet"], ATTENTION)})
    save_file({**load_file(path), key: torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match=REFUSED[key]):
        read_lora(path, roots)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "a bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
    ],
)
def test_settings_beside_the_file_are_heeded(
    settings: dict[str, Any], sentence: str, roots: dict[str, Any], tmp_path: Path
) -> None:
    """What `adapter_config.json` says of the factors and we do not follow is refused."""
    path = tmp_path / "lora.safetensors"
    write_lora(path, {"unet": random_factors(roots["unet"], ATTENTION)}, "peft")
    path.with_name("adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=f"{sentence} is not supported"):
        read_lora(path, roots)


def test_another_checkpoints_shapes_are_refused(roots: dict[str, Any], tmp_path: Path) -> None:
    """Factors that do not fit the layer, or a factor without its twin, name the layer."""
    factors = random_factors(roots["unet"], ("mid_block.attentions.0.proj_in",))
    ((name, (down, up)),) = factors.items()
    path = tmp_path / "lora.safetensors"
    write_lora(path, {"unet": {name: (down[:, 1:].contiguous(), up)}})
    with pytest.raises(CheckpointError, match=f"{name} is of another shape"):
        read_lora(path, roots)
    save_file({f"unet.{name}.lora_A.weight": down}, path)
    with pytest.raises(CheckpointError, match="not both of its factors"):
        read_lora(path, roots)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        read_lora(path, roots)

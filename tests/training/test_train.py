"""The stages, end to end and small: they write, resume and export."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from models.checkpoints.manifest import Scope, find_faults
from models.lora.parse import read_lora
from models.training.evaluation.classifier import Judge, frechet
from models.training.evaluation.sampling import load_pipeline, refine
from models.training.export import folder_megabytes
from models.training.loop.checkpoint import Average, Budget, load_state, prefixed, save_state
from models.training.loop.precision import mixed
from models.training.networks.architecture import GUIDANCE_WIDTH
from models.training.networks.noise import guidance_embedding
from models.training.networks.tokenizer import tokenize
from models.training.recipe import parse_diet, recipe
from models.training.scenes.renderers import render
from models.training.scenes.scene import draw_scene
from models.training.stages.autoencoder import (
    build_autoencoder,
    load_autoencoder,
    psnr,
    start_as_thumbnail,
)
from models.training.stages.latent_dataset import Bank, fill_bank, make_chunk
from models.training.stages.lora import RANK, LoraRun, lora_path
from models.training.stages.student import student_from_teacher
from models.training.stages.teacher import Teacher, load_teacher
from models.training.stages.warm_start import inherit
from models.training.train import POCKET, STAGES, main

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


def run(monkeypatch: pytest.MonkeyPatch, work: Path, *words: str) -> None:
    common = ["--work", str(work), "--pocket", str(work / "pocket"), "--batch", "4"]
    common += ["--processes", "1"]
    monkeypatch.setattr("sys.argv", ["train", *common, "--diet", "64x64:1:2:1.0", *words])
    main()


def test_a_thumbnail_comes_through_the_untrained_autoencoder() -> None:
    """The start already knows colours and places: over 15 dB before the first step."""
    model = build_autoencoder()
    start_as_thumbnail(model)
    x = render([draw_scene(n) for n in range(4)], "NONE", (64, 64)) * 2 - 1
    with torch.no_grad():
        y = model.decode(model.encode(x).latents).sample
    assert psnr(y, x) > 15


def test_state_is_whole_and_small(tmp_path: Path) -> None:
    """State survives in 16 bits, with its facts, and leaves no half-written file."""
    path = tmp_path / "deep" / "state.safetensors"
    save_state(path, {"a": torch.arange(4.0), "n": torch.tensor(3)}, seen=12)
    tensors, facts = load_state(path)
    torch.testing.assert_close(tensors["a"], torch.arange(4.0))
    assert tensors["n"].item() == 3
    assert facts["seen"] == "12"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_budget_warms_up_and_ends() -> None:
    """The rate grows with the first steps and a spent budget is over at its least rate."""
    budget = Budget(60, warmup_steps=10)
    first = budget.rate
    budget.steps = 9
    assert first < budget.rate == pytest.approx(1.0)
    spent = Budget(0)
    spent.steps = 1000
    assert spent.over
    assert spent.rate == pytest.approx(0.05)


def test_the_average_is_lent_and_taken_back() -> None:
    """Inside `applied` the module holds the average, afterwards its own weights again."""
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.9)
    own = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    with average.applied(module):
        torch.testing.assert_close(module.weight, own)
    torch.testing.assert_close(module.weight, own + 1)


def test_a_bank_is_the_same_again(tmp_path: Path) -> None:
    """A chunk made twice is the same, captions and latents, and a bank takes up new chunks."""
    model = build_autoencoder().eval()
    for work in (tmp_path / "a", tmp_path / "b"):
        fill_bank(work, model, (64, 80), range(1), scenes=2, device=CPU, until=Budget(1))
    one, other = (Bank(tmp_path / name, (64, 80), CPU) for name in "ab")
    drawn, again = (bank.draw(6, torch.Generator().manual_seed(0)) for bank in (one, other))
    for column, same in zip(drawn, again, strict=True):
        torch.testing.assert_close(column, same)
    chunk = make_chunk(model, (64, 80), 0, scenes=2, device=CPU)
    for name in ("doodles", "things", "posed"):  # of two scenes in three styles
        torch.testing.assert_close(chunk[name][:2], chunk[name][2:4])
    sample = Bank(tmp_path / "a", (64, 80), CPU, for_trunk=True).draw(5, torch.Generator())
    assert sample.for_trunk
    assert sample.latents.shape == sample.doodles.shape == (5, 4, 8, 10)
    assert sample.things.shape == (5, 1, 8, 10)
    assert sample.tokens.shape == (5, 77)
    assert 0 < sample.things.max() <= 1
    fill_bank(tmp_path / "a", model, (64, 80), range(2), scenes=2, device=CPU, until=Budget(1))
    one.refresh()
    assert len(one) == 12


def test_the_whole_chain_writes_a_folder_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment of every stage, twice: the second run resumes, and diffusers loads the folder."""
    monkeypatch.setattr("models.training.stages.autoencoder.POOL", ((64, 1),))
    monkeypatch.setattr("models.training.stages.autoencoder.SHARES", (0.5, 0.5))
    seen: list[dict[str, int]] = []
    for _ in range(2):
        for stage in STAGES[: STAGES.index("lora")]:
            run(monkeypatch, tmp_path, "--stage", stage, "--minutes", "0.01")
        states = ("autoencoder", "teacher", "student")
        facts = {name: load_state(tmp_path / f"{name}.safetensors")[1] for name in states}
        seen.append({name: int(fact["seen"]) for name, fact in facts.items()})
    assert all(seen[1][name] > seen[0][name] > 0 for name in seen[0])
    run(monkeypatch, tmp_path, "--stage", "export")
    pocket = tmp_path / "pocket"
    assert folder_megabytes(pocket) < 25
    assert not list(pocket.rglob("*.bin"))
    assert str(tmp_path) not in (pocket / "model_index.json").read_text()
    scope = Scope.of_folder(pocket)
    manifest = scope.read()
    assert manifest is not None, "the exporter writes it"
    assert manifest.files.keys() == set(scope.files())
    assert not find_faults(scope, manifest, hashes=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = load_pipeline(pocket, CPU, torch.float32)
        made = refine(pipeline, ["a red heart"], torch.rand(1, 3, 64, 64), strength=0.6, guidance=6)
    assert made.shape == (1, 3, 64, 64)
    assert torch.isfinite(made).all()
    states_bytes = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert states_bytes < 140e6


def test_an_adapter_learns_its_style_and_is_read_by_the_service(tmp_path: Path) -> None:
    """Steps bring the loss down, the file goes on from where it was, and is a LoRA of ours."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder()
    start_as_thumbnail(autoencoder)  # one at random leaves next to nothing in its latents to learn
    save_state(tmp_path / "autoencoder.safetensors", both_ways(autoencoder), seen=0)
    teacher = Teacher()
    save_state(tmp_path / "teacher.safetensors", both_ways(teacher), seen=0)
    student = student_from_teacher(teacher)
    save_state(tmp_path / "student.safetensors", both_ways(student), seen=0)
    run = LoraRun(tmp_path, "SKETCH_BW", CPU, 5e-3, (64, 64), scenes=2)
    index = torch.arange(2).repeat(6)
    with torch.no_grad():
        torch.manual_seed(1)
        before = run.loss(index)
    for _ in range(60):
        run.step(1.0)
    run.save()
    again = LoraRun(tmp_path, "SKETCH_BW", CPU, 5e-3, (64, 64), scenes=2)
    with torch.no_grad():
        torch.manual_seed(1)
        assert again.loss(index) < 0.9 * before
    lora = read_lora(lora_path(tmp_path, "SKETCH_BW"), {"unet": student})
    assert all(factors.rank == RANK for factors in lora.values())
    assert lora_path(tmp_path, "SKETCH_BW").stat().st_size < 700_000


def both_ways(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a net's state as weights and as their average."""
    state = net.state_dict()
    return prefixed("weights.", state) | prefixed("average.", state)


def test_a_diet_is_read() -> None:
    """Shapes, chunks, scenes and weights stand in one argument."""
    small, big = parse_diet("128x128:40:64:0.8,512x640:2:8:0.1")
    assert (small.shape, big.shape) == ((128, 128), (512, 640))
    assert (big.chunks, big.scenes, big.weight) == (2, 8, 0.1)
    assert not small.for_trunk
    (trunk,) = parse_diet("128x128^:40:64:0.8")
    assert (trunk.shape, trunk.for_trunk) == ((128, 128), True)


@pytest.mark.parametrize("large", [False, True])
def test_each_stage_finds_what_the_recipe_has_filled(*, large: bool) -> None:
    """A bank that teacher or student learn from is one that the bank's own diet names."""
    steps = recipe(large=large)
    (filled,) = [parse_diet(step.diet) for step in steps if step.stage == "bank"]
    shapes = {diet.shape for diet in filled}
    for step in steps:
        diets = parse_diet(step.diet)
        assert {diet.shape for diet in diets} <= shapes
        assert step.stage != "lora" or not any(diet.for_trunk for diet in diets)


SIDES = (512, 640, 1024)


@pytest.mark.parametrize("large", [False, True])
def test_the_recipe_serves_every_shape(*, large: bool) -> None:
    """The shares of the minutes sum to about one, and the last diet has all nine shapes."""
    steps = recipe(large=large)
    assert sum(step.share for step in steps) == pytest.approx(1.0, abs=0.02)
    served = {diet.shape for diet in parse_diet(steps[-1].diet)}
    assert served == {(height, width) for height in SIDES for width in SIDES}


def test_a_judge_sees_wide_pictures_undistorted() -> None:
    """A square in the middle is shrunk alike, pixel by pixel, however wide the ground is."""
    square = torch.rand(1, 3, 192, 192)
    wide = torch.nn.functional.pad(square, (96, 96), value=1)  # [1, 3, 192, 384]
    for turned in (wide, wide.mT):
        assert Judge().eval()(turned).kind.shape == (1, 16)
    seen = Judge.shrunk(wide)[..., 48:144]
    torch.testing.assert_close(seen, Judge.shrunk(square))
    torch.testing.assert_close(Judge.shrunk(wide.mT).mT, Judge.shrunk(wide))


def test_distances_know_equals() -> None:
    """The Frechet distance of features is nought to themselves and more elsewhere."""
    features = torch.randn(64, 8)
    assert frechet(features, features) == pytest.approx(0, abs=1e-3)
    assert frechet(features, features + 1) == pytest.approx(8, rel=1e-3)


def test_training_goes_on_from_the_shipped_folder(tmp_path: Path) -> None:
    """A teacher taken from pocket's student says the same as it does at guidance 1."""
    inherit(POCKET, tmp_path)
    teacher = load_teacher(tmp_path)
    student = UNet2DConditionModel.from_pretrained(POCKET / "unet", dtype=torch.float32)
    lot = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, 16, 16, generator=lot), torch.tensor([19, 999])
    text = teacher.read(torch.tensor(tokenize(["a red house", "the sea"])))
    unguided = guidance_embedding(torch.zeros(2), GUIDANCE_WIDTH)
    with torch.no_grad():
        told = student(x, t, text, timestep_cond=unguided).sample
        torch.testing.assert_close(teacher.unet(x, t, text).sample, told, atol=2e-2, rtol=2e-2)
    assert load_autoencoder(tmp_path).config.latent_channels == 4


def test_an_export_without_training_is_the_shipped_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken from the folder and exported again holds the same weights."""
    pocket, work = tmp_path / "pocket", tmp_path / "work"
    shutil.copytree(POCKET, pocket)
    words = ["train", "--work", str(work), "--pocket", str(pocket), "--stage", "export"]
    monkeypatch.setattr("sys.argv", words)
    main()
    for name in ("unet", "vae", "text_encoder"):
        shipped, made = (
            load_file(next((folder / name).glob("*.safetensors"))) for folder in (POCKET, pocket)
        )
        assert shipped.keys() == made.keys()
        assert all(torch.equal(shipped[key], made[key]) for key in shipped)


def test_a_state_of_ones_own_is_not_overwritten(tmp_path: Path) -> None:
    """Where training has begun already, the shipped networks have no say."""
    save_state(tmp_path / "autoencoder.safetensors", {"a": torch.zeros(1)}, seen=7)
    inherit(POCKET, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["autoencoder.safetensors"]
    assert load_state(tmp_path / "autoencoder.safetensors")[1]["seen"] == "7"


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_used_where_a_processor_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, *, native: bool
) -> None:
    """Without them a product stays in float32, which is faster there by two orders."""
    monkeypatch.setattr("models.training.loop.precision.has_bf16_products", lambda: native)
    with mixed(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if native else torch.float32)

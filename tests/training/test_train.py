"""The command, end to end and small: every stage writes, resumes and exports."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.checkpoints.manifest import Scope, find_faults
from models.training.evaluation.sampling import load_pipeline, refine
from models.training.export import folder_megabytes
from models.training.loop.checkpoint import load_state
from models.training.train import POCKET, STAGES, main
from tests.training.batches import CPU


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["train", *map(str, words)])
    main()


def test_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment of every stage, twice: the second run resumes, and diffusers loads the folder."""
    monkeypatch.setattr("models.training.stages.autoencoder.POOL", ((64, 1),))
    monkeypatch.setattr("models.training.stages.autoencoder.SHARES", (0.5, 0.5))
    pocket = tmp_path / "pocket"
    options: list[str | Path] = [
        "--work",
        tmp_path,
        "--pocket",
        pocket,
        "--batch",
        "4",
        "--processes",
        "1",
    ]
    options += ["--mixture", "64x64:1:2:1.0", "--minutes", "0.01"]
    seen: list[dict[str, int]] = []
    for _ in range(2):
        for stage in STAGES[: STAGES.index("lora")]:
            run(monkeypatch, *options, "--stage", stage)
        states = ("autoencoder", "teacher", "student")
        facts = {name: load_state(tmp_path / f"{name}.safetensors")[1] for name in states}
        seen.append({name: int(fact["seen"]) for name, fact in facts.items()})
    assert all(seen[1][name] > seen[0][name] > 0 for name in seen[0])
    run(monkeypatch, *options, "--stage", "export")
    assert folder_megabytes(pocket) < 25
    assert not list(pocket.rglob("*.bin"))
    assert str(tmp_path) not in (pocket / "model_index.json").read_text()
    scope = Scope.of_folder(pocket)
    manifest = scope.read()
    assert manifest is not None
    assert manifest.files.keys() == set(scope.files())
    assert not find_faults(scope, manifest, hashes=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = load_pipeline(pocket, CPU, torch.float32)
        image = torch.rand(1, 3, 64, 64)
        refined = refine(pipeline, ["a red heart"], image, strength=0.6, guidance=6)
    assert refined.shape == (1, 3, 64, 64)
    assert torch.isfinite(refined).all()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) < 140e6


def test_export_of_warm_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm start that is exported without training has the shipped weights."""
    pocket = tmp_path / "pocket"
    shutil.copytree(POCKET, pocket)
    run(monkeypatch, "--work", tmp_path / "work", "--pocket", pocket, "--stage", "export")
    for name in ("unet", "vae", "text_encoder"):
        shipped, exported = (
            load_file(next((folder / name).glob("*.safetensors"))) for folder in (POCKET, pocket)
        )
        assert shipped.keys() == exported.keys()
        assert all(torch.equal(shipped[key], exported[key]) for key in shipped)

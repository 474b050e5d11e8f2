"""The styles as data, and that each gives a picture of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from models.checkpoints.catalog import find_checkpoint, load_catalog
from models.checkpoints.hub import local_folder
from models.errors import CheckpointError
from models.styles.presets import Style, load_styles
from service.protocol.jobs import Pixels
from tests.support.engine_runs import load, make_engine, make_job, picture, run

NAMES = [
    "NONE", "ANIME", "CINEMATIC", "DIGITAL_ART", "DYNAMIC", "ENVIRONMENT", "FANTASY_ART",
    "ILLUSTRATION", "PHOTOGRAPHY", "RAYTRACED", "RENDER_3D", "SKETCH_BW", "SKETCH_COLOR", "VIBRANT",
]  # fmt: skip


def test_the_fourteen_styles_of_the_api_are_there() -> None:
    """Their names are the hosted ones, and `NONE` adds nothing."""
    styles = load_styles()
    assert set(NAMES) <= set(styles)
    assert styles["NONE"].apply("a {prompt} of mine") == "a {prompt} of mine"
    assert len({style.prompt for style in styles.values()}) == len(styles)


def test_a_template_without_a_place_for_the_prompt_is_refused() -> None:
    """A row that would drop the caller's words cannot be loaded, nor one with unknown fields."""
    for template in ("oil painting", "{prompt} and {prompt}"):
        with pytest.raises(ValidationError, match="exactly once"):
            Style(name="X", title="X", prompt=template)
    with pytest.raises(ValidationError):
        Style.model_validate({"name": "X", "title": "X", "prompt": "{prompt}", "colour": "red"})


def test_checkpoints_are_found_by_name_folder_and_hub_id(tmp_path: Path) -> None:
    """All three ways to name one work without a network; what is none of them is told."""
    assert {"pocket", "lcm-dreamshaper-v7"} <= set(load_catalog())
    assert find_checkpoint(str(tmp_path)).source == str(tmp_path)
    given = find_checkpoint("someone/something@abc123")
    assert (given.source, given.revision) == ("someone/something", "abc123")
    for nothing in ("nothing", "../nothing", "/nothing/here", "a/b/c", ""):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            find_checkpoint(nothing)


def test_what_is_not_downloaded_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving downloads nothing; the error says what would."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="instant-refine models pull lcm-dreamshaper-v7"):
        local_folder(find_checkpoint("lcm-dreamshaper-v7"))


@pytest.mark.slow
def test_each_style_gives_a_picture_of_its_own() -> None:
    """On the bundled checkpoint all fourteen pictures of one doodle differ, and none is flat."""
    engine = make_engine(load(local_folder(find_checkpoint("pocket"))))
    usual = make_job(height=512, width=512, strength=0.6)
    pictures: dict[str, Pixels] = {}
    for name, style in load_styles().items():
        params = dataclasses.replace(usual.params, prompt=style.apply("a red house"))
        job = dataclasses.replace(usual, params=params)
        pictures[name] = picture(run(engine, [job])["job"])
        assert pictures[name].std() > 5, name
    for name in NAMES[1:]:
        difference = np.abs(pictures[name].astype(int) - pictures["NONE"]).mean()
        assert difference > 1, name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[MINE]\ntitle = "Mine"\nprompt = "no place"\n', "line 3: MINE: prompt: .*exactly once"),
        ('[MINE]\ntitle = "Mine"\n', "line 1: MINE: prompt: Field required"),
        ('\n[A]\ntitle="A"\nprompt="{prompt}"\nguidance = 99\n', "line 5: A: guidance: .*20"),
        ('[A]\ntitle="A"\nprompt="{prompt}"\ncolour = 1\n', "line 4: A: colour: Extra"),
        ('[A]\ntitle="A"\nprompt="{prompt}"\nname = "B"\n', "line 4: A: name: Extra"),
        ('[A]\n[B]  # two\ntitle="B"\n', "line 1: A: title: Field required"),
        ('[A\ntitle="A"', "styles.toml: .*line 1"),
    ],
)
def test_a_faulty_file_of_styles_names_line_and_field(
    text: str, sentence: str, tmp_path: Path
) -> None:
    """The server does not start on it, and the operator reads where it is wrong."""
    (tmp_path / "styles.toml").write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        load_styles(str(tmp_path / "styles.toml"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_styles(str(tmp_path / "nothing.toml"))


def test_own_styles_join_ours(tmp_path: Path) -> None:
    """A file adds styles and replaces ours by name; a LoRA is found beside the file."""
    path = tmp_path / "styles.toml"
    path.write_text(
        '[MINE]\ntitle = "Mine"\nprompt = "{prompt}, mine"\nlora = "a.safetensors"\n'
        '[ANIME]\ntitle = "Anime"\nprompt = "{prompt}, drawn"\nstrength = 0.7\n'
    )
    styles = load_styles(str(path))
    assert styles["MINE"].lora == str(tmp_path / "a.safetensors")
    assert styles["ANIME"].apply("a boat") == "a boat, drawn"
    assert set(load_styles()) < set(styles)

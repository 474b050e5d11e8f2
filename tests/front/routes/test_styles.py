"""What the service tells of its styles: their thumbnails, and where they have a LoRA."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from models.errors import CheckpointError
from models.styles.presets import load_styles
from service.front.app import create_app
from service.front.registry import Served
from service.realtime_client import RealtimeClient
from service.settings import Settings
from tests.support.api import Api
from tests.support.fakes import READY, FakeEngineClient
from tests.support.servers import KEY, running_server
from tests.support.sockets import picture

MINE = """
[MINE]
title = "Mine"
prompt = "{prompt}, mine"
thumbnail = "mine.png"

["A STYLE/..?"]
title = "Without a picture"
prompt = "{prompt}, plain"
"""
KEPT = "private, max-age=31536000, immutable"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file of styles, of which one has a thumbnail."""
    Image.new("RGB", (96, 96), (20, 90, 160)).save(tmp_path / "mine.png")
    path = tmp_path / "styles.toml"
    path.write_text(MINE)
    return path


@contextmanager
def serving(engine: FakeEngineClient | None = None, **settings: Any) -> Iterator[Api]:
    engine = engine or FakeEngineClient()
    with running_server(engine, api_keys=KEY, **settings) as url, Api(url) as api:
        yield api


def listed(api: Api) -> dict[str, dict[str, Any]]:
    styles = api.http.get("/v1/styles").json()["styles"]
    return {style["name"]: style for style in styles}


def test_each_of_our_styles_has_a_thumbnail(api: Api) -> None:
    """It is a small picture of a few kilobytes, at the path that the list tells."""
    for name, style in listed(api).items():
        answer = api.http.get(style["thumbnail"])
        assert answer.status_code == 200, name
        assert len(answer.content) < 12_000
        assert answer.headers["content-type"] == "image/webp"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (128, 128)
    contents = {api.http.get(style["thumbnail"]).content for style in listed(api).values()}
    assert len(contents) == len(load_styles()), "two styles look the same"


def test_a_thumbnail_is_kept_under_its_tag_alone(api: Api) -> None:
    """The listed path is kept for good; any other is asked about, and 304 where it is known."""
    path = listed(api)["ANIME"]["thumbnail"]
    first = api.http.get(path)
    assert first.headers["cache-control"] == KEPT
    assert first.headers["x-content-type-options"] == "nosniff"
    for bare in (path.partition("?")[0], path + "0"):
        assert api.http.get(bare).headers["cache-control"] == "private, no-cache"
    again = api.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_a_thumbnail_needs_the_key(api: Api) -> None:
    """Styles may be somebody's own: nobody without a key sees them, nor learns their names."""
    for name in ("ANIME", "NOTHING"):
        answer = httpx.get(f"{api.url}/v1/styles/{name}/thumbnail")
        api.refused(answer, 401, "access-denied")


@pytest.mark.parametrize(
    "name",
    ["NOTHING", "anime", "..", "..%2F..%2Fstyles.toml", "%2Fetc%2Fpasswd", "ANIME.webp", "%00"],
)
def test_a_name_is_no_path(api: Api, name: str) -> None:
    """A name that is no style's is 404, whatever it looks like."""
    answer = api.http.get(f"/v1/styles/{name}/thumbnail")
    api.refused(answer, 404, "not-found")


def test_own_styles_have_the_thumbnail_that_they_name(own: Path) -> None:
    """It is served as it is; a style without one, and one that replaces ours, has none."""
    with own.open("a") as file:
        file.write('[ANIME]\ntitle = "Anime"\nprompt = "{prompt}, drawn by me"\n')
    with serving(styles=str(own)) as api:
        styles = listed(api)
        answer = api.http.get(styles["MINE"]["thumbnail"])
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == (own.parent / "mine.png").read_bytes()
        assert styles["A STYLE/..?"]["thumbnail"] is None
        assert styles["ANIME"]["thumbnail"] is None
        assert styles["VIBRANT"]["thumbnail"]


def test_any_name_of_a_style_can_be_asked_for(own: Path) -> None:
    """Whatever a table is called, its thumbnail has a path that leads to it."""
    own.write_text(MINE + 'thumbnail = "mine.png"\n')
    with serving(styles=str(own)) as api:
        answer = api.http.get(listed(api)["A STYLE/..?"]["thumbnail"])
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == KEPT


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "mine.png cannot be read"),
        (b"no picture", "mine.png is not a JPEG, PNG or WebP"),
        (b"\x00" * 70_000, "mine.png is over 64 kB"),
    ],
)
def test_a_faulty_thumbnail_names_line_and_field(
    own: Path, content: bytes | None, sentence: str
) -> None:
    """The service does not start on it, and the operator reads where it is wrong."""
    (own.parent / "mine.png").unlink()
    if content is not None:
        (own.parent / "mine.png").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"styles.toml, line 5: MINE: thumbnail: {sentence}"):
        create_app(Settings(styles=str(own)), FakeEngineClient())


def test_a_huge_thumbnail_is_refused(own: Path) -> None:
    """The page loads all of them at once, so that none may be larger than it is shown."""
    Image.new("RGB", (600, 20)).save(own.parent / "mine.png")
    with pytest.raises(CheckpointError, match=r"line 5: MINE: thumbnail: .* is over 512 pix"):
        Served.of(Settings(styles=str(own)))


def test_loras_are_told_of_each_checkpoint(tmp_path: Path) -> None:
    """The engine knows where they are and where they fit; before it is ready nobody does."""
    (tmp_path / "other").mkdir()
    engine = FakeEngineClient()
    ready = replace(
        READY,
        loras={"pocket": ["ANIME", "INK"], "other": ["ANIME"]},
        misfits={"pocket": [], "other": ["VIBRANT"]},
    )
    engine.health = replace(engine.health, ready=ready)
    with serving(engine, models=f"pocket,{tmp_path / 'other'}") as api:
        styles = listed(api)
        both = {"available": True, "has_lora": True}
        none = {"available": True, "has_lora": False}
        assert styles["ANIME"]["models"] == {"pocket": both, "other": both}
        assert styles["ANIME"]["has_lora"] is True
        assert styles["VIBRANT"]["has_lora"] is False
        assert styles["VIBRANT"]["available"] is True
        misfit = {"available": False, "has_lora": False}
        assert styles["VIBRANT"]["models"] == {"pocket": none, "other": misfit}
        engine.health = replace(engine.health, state="starting", ready=None)
        assert listed(api)["ANIME"]["has_lora"] is None


def test_a_style_that_does_not_fit_is_refused_there_alone(tmp_path: Path) -> None:
    """A picture without its LoRA would be wrong without a word; the other checkpoint serves it."""
    (tmp_path / "other").mkdir()
    engine = FakeEngineClient()
    engine.health = replace(
        engine.health, ready=replace(READY, misfits={"pocket": [], "other": ["VIBRANT"]})
    )
    with serving(engine, models=f"pocket,{tmp_path / 'other'}") as api:
        refused = api.refine(style="VIBRANT", modelId="other")
        sentence = api.refused(refused, 400, "validation-failed", "$.style")
        assert sentence.startswith("style VIBRANT is not available for the checkpoint other")
        assert api.refine(style="VIBRANT").status_code == 200
        assert api.refine(style="ANIME", modelId="other").status_code == 200
        assert len(engine.asked) == 2


def test_a_socket_is_told_of_a_style_that_does_not_fit() -> None:
    """Who draws gets the same sentence for the frame, and goes on with another style."""

    async def draw(url: str) -> list[str]:
        kinds = []
        async with RealtimeClient(url) as live, asyncio.timeout(20):
            answers = aiter(live)
            for style in ("VIBRANT", "ANIME"):
                live.send(picture((9, 9, 9), "PNG"), prompt="a boat", style=style)
                answer = await anext(answers)
                kinds.append(answer.kind)
                if answer.kind == "error":
                    assert answer.content["path"] == "$.style"
        return kinds

    engine = FakeEngineClient()
    engine.health = replace(engine.health, ready=replace(READY, misfits={"pocket": ["VIBRANT"]}))
    with running_server(engine) as url:
        assert asyncio.run(draw(url)) == ["error", "result"]

"""Settings: one frozen object."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`REFINE_*` variables set what their names say, and reach the engine."""
    monkeypatch.setenv("REFINE_MODEL", "some/model")
    monkeypatch.setenv("REFINE_MAX_BATCH", "4")
    monkeypatch.setenv("REFINE_API_KEYS", " one, two ,,")
    settings = Settings()
    assert (settings.engines()[0].model, settings.engines()[0].max_batch) == ("some/model", 4)
    assert settings.keys() == ["one", "two"]


def test_settings_are_frozen_and_checked() -> None:
    """A value out of its bounds is refused, and none can change later."""
    with pytest.raises(ValidationError):
        Settings(port=70_000)
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("REFINE_MAX_BODIES_BYTES", "REFINE_BODY_BUDGET_BYTES"),
        ("REFINE_WRONG_KEYS_PER_MINUTE", "REFINE_FAILED_AUTH_PER_MINUTE"),
        ("REFINE_HOT_SHAPES", "REFINE_WARMUP_SHAPES"),
        ("REFINE_OPEN_METRICS", "REFINE_METRICS_NO_AUTH"),
        ("REFINE_DRAIN_S", "REFINE_DRAIN_TIMEOUT_S"),
        ("refine_drain_s", "REFINE_DRAIN_TIMEOUT_S"),
    ],
)
def test_old_names_are_refused(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """A variable under an old name, in any case, raises an error that names the new one."""
    monkeypatch.setenv(old, "5")
    with pytest.raises(ValidationError, match=f"set {new} instead"):
        Settings()


def test_keys_never_show() -> None:
    """Neither the settings nor what the engine is started with show a key."""
    settings = Settings(api_keys="hush")
    assert "hush" not in repr(settings) + settings.engines()[0].model_dump_json()


def test_the_engine_is_told_where_the_users_catalogue_is(tmp_path: Path) -> None:
    """Both processes look checkpoints up in the same file, its `~` resolved, or none is found."""
    (engine,) = Settings(catalog=tmp_path / "mine.toml", verify="full").engines()
    assert (engine.catalog, engine.verify) == (str(tmp_path / "mine.toml"), "full")
    assert Settings().engines()[0].catalog == str(
        Path.home() / ".config/instant-refine/catalog.toml"
    )

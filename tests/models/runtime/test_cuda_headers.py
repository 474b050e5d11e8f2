"""Where CUDA's headers are looked for, on folders that stand in for a machine's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch.utils import cpp_extension

from models.runtime import cuda_headers as toolkit
from models.runtime.cuda_headers import NoToolkit, find_toolkit, use_toolkit


def write_headers(home: Path, names: tuple[str, ...] = toolkit._NEEDED) -> Path:
    for name in names:
        path = home / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return home


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a toolkit, and with a folder for wheels."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolkit, "_USUAL", tmp_path / "usual")
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)


def test_a_toolkit_goes_before_wheels_and_torch_hears_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What CUDA_HOME names, then the usual place, then the wheels of the extra `cuda`."""
    wheels = write_headers(tmp_path / "site/nvidia/cu13")
    assert find_toolkit() == wheels
    usual = write_headers(tmp_path / "usual")
    assert find_toolkit() == usual
    named = write_headers(tmp_path / "named")
    monkeypatch.setenv("CUDA_HOME", str(named))
    use_toolkit()
    assert cpp_extension.include_paths("cpp")  # its other parts work as before
    assert cpp_extension._join_cuda_home("include") == str(named / "include")


def test_a_toolkit_without_all_headers_is_passed_over(tmp_path: Path) -> None:
    """An image for running has the folder, and torch's own wheels have some of the headers."""
    write_headers(tmp_path / "usual", ("cuda.h",))
    write_headers(tmp_path / "site/nvidia/cu13", toolkit._NEEDED[:-2])
    with pytest.raises(NoToolkit, match=r"instant-refine\[cuda\]"):
        find_toolkit()

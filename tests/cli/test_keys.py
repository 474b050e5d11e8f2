"""The file of keys, and the command that keeps it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.api_keys import (
    KeyFileError,
    KeyRecord,
    Limits,
    Rate,
    digest_of,
    new_record,
    parse_limits,
    read_keys,
    write_keys,
)
from service.cli.keys import app

DIGEST = hashlib.sha256(b"a key").hexdigest()


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_file_is_read(tmp_path: Path) -> None:
    """Ids, digests and limits; comments and blank lines are skipped."""
    file = written(tmp_path / "keys", f"# ours\n\napp:{DIGEST}\nb:{DIGEST.upper()}:rate=10/s\n")
    digest = digest_of("a key")
    assert read_keys(file) == [KeyRecord("app", digest), KeyRecord("b", digest, "rate=10/s")]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_file_that_others_may_open_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    """Group and world may neither read nor write; the sentence names the command that mends it."""
    file = written(tmp_path / "keys", "", mode)
    with pytest.raises(KeyFileError, match=f"run: chmod 600 {file}"):
        read_keys(file)


@pytest.mark.parametrize(
    "line",
    [
        "a-plain-key", "app:", f"app:{DIGEST[:-1]}", f":{DIGEST}", f"a b:{DIGEST}", "app:a key",
        f"app:{DIGEST}:fast", f"app:{DIGEST}:rate=0/s", f"app:{DIGEST}:concurrent=-1",
        f"app:{DIGEST}:rate=1", f"{'x' * 65}:{DIGEST}",
    ],
)  # fmt: skip
def test_a_broken_line_is_told_by_its_number_alone(tmp_path: Path, line: str) -> None:
    """What stands in it could be a key that was pasted, so it is not repeated."""
    file = written(tmp_path / "keys", f"app:{DIGEST}\n{line}\n")
    with pytest.raises(KeyFileError, match="line 2") as raised:
        read_keys(file)
    assert "a-plain-key" not in str(raised.value)
    assert DIGEST not in str(raised.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A missing file names the command that makes one; a folder is none."""
    with pytest.raises(KeyFileError, match="instant-refine keys new ID"):
        read_keys(tmp_path / "none")
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(tmp_path)


def test_limits_are_read_over_others() -> None:
    """What is named replaces, what is not stays."""
    base = Limits(concurrent=16, sockets=4)
    assert parse_limits(" rate = 90/min , concurrent=2 ", base) == Limits(2, Rate(90, 60.0), 4)
    assert parse_limits("", base) == base


@given(
    st.lists(
        st.builds(
            KeyRecord,
            st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
            st.binary(min_size=32, max_size=32),
            st.sampled_from(["", "rate=1/h", "concurrent=3,sockets=0"]),
        )
    )
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[KeyRecord]
) -> None:
    """Any records survive the file, which only its owner may read."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    write_keys(file, records)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_keys(file) == records


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The new file takes the old one's place in one move, or not at all."""
    file = written(tmp_path / "keys", f"app:{DIGEST}\n")

    def failing() -> list[KeyRecord]:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_keys(file, (record for _ in "x" for record in failing()))
    assert file.read_text() == f"app:{DIGEST}\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_is_shown_once_and_never_stored(tmp_path: Path) -> None:
    """`new` prints it, the file and `list` hold its digest, and no two are alike."""
    file = tmp_path / "keys"
    key = run("new", "app", "--file", file, "--limits", "rate=10/s").strip()
    other = run("new", "app", "--file", file).strip()
    assert len(key) >= 43
    assert key != other
    assert key not in file.read_text()
    assert read_keys(file) == [
        KeyRecord("app", digest_of(key), "rate=10/s"),
        KeyRecord("app", digest_of(other)),
    ]
    listed = run("list", "--file", file)
    assert "rate=10/s" in listed
    assert digest_of(key).hex()[:12] in listed
    assert key not in listed


def test_keys_are_revoked_by_id_or_one_by_one(tmp_path: Path) -> None:
    """One digest of an id, then all of it; another id stays; nothing to revoke is an error."""
    file = tmp_path / "keys"
    first, second, other = (run("new", name, "--file", file).strip() for name in ("a", "a", "b"))
    run("revoke", "a", "--file", file, "--sha256", digest_of(first).hex()[:12])
    assert [record.digest for record in read_keys(file)] == [digest_of(second), digest_of(other)]
    run("revoke", "a", "--file", file)
    assert [record.id for record in read_keys(file)] == ["b"]
    with pytest.raises(KeyFileError, match="no such key of a"):
        run("revoke", "a", "--file", file)


@pytest.mark.parametrize(("key_id", "limits"), [("a:b", ""), ("", ""), ("a", "fast")])
def test_what_a_file_cannot_hold_is_refused(key_id: str, limits: str) -> None:
    """An id is a plain word, limits are those that are known."""
    with pytest.raises(KeyFileError):
        new_record(key_id, limits)

"""The log's file: which mode it has after it was opened anew."""

import os
import stat

import pytest

from gatewayd.telemetry.logs.files import MovableFile


@pytest.fixture
def umask():
    """That of a daemon; what is made first was made before it."""
    before = os.umask(0o022)
    yield lambda: os.umask(0o077)
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def opened(path):
    return MovableFile.fromFullPath(str(path))


def test_a_new_file_has_the_mode_of_the_one_before(tmp_path, umask):
    path = tmp_path / "log"
    file = opened(path)
    umask()
    for _ in range(2):
        file.start_anew()  # moves it itself
        assert mode_of(path) == mode_of(tmp_path / "log.1") == 0o644
    path.rename(tmp_path / "moved")
    file.start_anew()
    assert mode_of(path) == 0o644
    file.close()


def test_a_mode_that_was_changed_meanwhile_is_kept(tmp_path, umask):
    path = tmp_path / "log"
    file = opened(path)
    path.chmod(0o640)
    umask()
    file.start_anew()
    assert mode_of(path) == 0o640
    file.close()


def test_a_file_that_is_full_is_followed_by_one_of_its_mode(tmp_path, umask):
    path = tmp_path / "log"
    file = opened(path)
    umask()
    file.write(b"x" * file.rotateLength)
    file.write(b"next")
    assert (path.read_bytes(), mode_of(path)) == (b"next", 0o644)
    file.close()


def test_a_file_that_somebody_else_made_keeps_its_own(tmp_path, umask):
    path = tmp_path / "log"
    file = opened(path)
    path.rename(tmp_path / "moved")
    path.touch()
    path.chmod(0o600)
    file.start_anew()
    assert mode_of(path) == 0o600
    file.close()


def test_the_first_is_as_the_umask_says(tmp_path, umask):
    umask()
    opened(tmp_path / "log").close()
    assert mode_of(tmp_path / "log") == 0o600

"""Files are written whole: a reader sees the old one or the new one."""

import os
import stat

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from report_cases import FASTER, LOSING, made_up_results

from softmax_numba.report import folder


def test_replaces_the_whole_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old, and much longer")
    folder.write_whole(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["replace", "fdopen"])
def test_failure_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch, step):
    path = tmp_path / "results.json"
    path.write_text("old")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, step, full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupt_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_others_may_read_what_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        folder.write_whole(tmp_path / "f", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644


def test_pictures_of_an_earlier_report_do_not_stay(tmp_path):
    folder.write_all(tmp_path, made_up_results(FASTER, LOSING))
    assert (tmp_path / "figures" / "latency.png").exists()
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    folder.write_all(tmp_path, made_up_results(FASTER))
    names = {path.stem for path in (tmp_path / "figures").iterdir() if not path.stem.startswith("explained")}
    assert names == {"speed", "bandwidth", "accuracy", "tradeoff", "mine"}

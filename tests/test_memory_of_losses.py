"""The script that measures what memory losses take: it sees what is taken, and leaves no file."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "memory_of_losses.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("memory_of_losses", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_loss_over_a_file_takes_less_than_the_file(script, tmp_path):
    arguments = ["--gb", "0.2", "--classes", "1000", "--folder", str(tmp_path)]
    with script.logits(script.options().parse_args(arguments)) as path:
        size = path.stat().st_size
        assert 199e6 < size < 201e6
        grown, loss = script.growth_of("cross_entropy", [*arguments, "--file", str(path)])
    assert grown < size / 10
    assert 8 < loss < 14
    assert not list(tmp_path.iterdir())


def test_memory_that_is_taken_is_seen(script):
    """The gradients of a linear layer at least."""
    rows, features, classes = 64, 512, 20_000
    arguments = ["--rows", str(rows), "--features", str(features), "--classes", str(classes)]
    grown, loss = script.growth_of("linear_cross_entropy_and_grad", arguments)
    assert 4 * features * classes < grown < 8 * features * classes + 2 * 4 * rows * classes + 2**26
    assert np.isfinite(loss)


def test_a_linear_layer_takes_a_quarter_of_its_logits(script):
    """Beside its gradients: a tenth of what PyTorch takes, who holds them two and a half times."""
    rows, features, classes = 2048, 256, 50_257
    arguments = ["--rows", str(rows), "--features", str(features), "--classes", str(classes)]
    grown, _ = script.growth_of("linear_cross_entropy_and_grad", arguments)
    assert grown - 4 * features * (rows + classes) < 4 * rows * classes / 4


def test_a_file_for_which_there_is_no_room_is_refused(script, tmp_path):
    given = script.options().parse_args(["--gb", "1e9", "--folder", str(tmp_path)])
    with (
        pytest.raises(SystemExit, match=r"--gb 1e\+09 needs 10000\d+\.\d GB in .*; \d+\.\d GB are free"),
        script.logits(given),
    ):
        pass
    assert not list(tmp_path.iterdir())

"""What all tests share: the real data where it is, and settings that make runs repeatable."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from PIL import Image

os.environ.setdefault("MPLBACKEND", "Agg")

# Tests run side by side: threads of several would wait for each other on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background, tests would hand on that Ctrl-C is ignored to the processes that they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine must not fail a test: no deadline, no complaint about slow generation.
# The same examples in every run, so that a run that fails fails again; `make fuzz` draws others.
settings.register_profile("fuzz", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("house", settings.get_profile("fuzz"), derandomize=True)
settings.load_profile("house")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _level_of_the_log() -> Iterator[None]:
    """What a test sets, as the command line does, does not stay for the next one."""
    logger = logging.getLogger("geoseg")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are composed as ever, and saved as a dot: rendering takes longer than a tiny training run."""

    def save(figure: Figure, path: str | os.PathLike[str], **_: object) -> None:
        del figure
        Image.new("L", (1, 1)).save(path, format="png")

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery beside the checkout; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real imagery is absent: no ../shared/data beside the checkout")
    return SHARED_DATA


@pytest.fixture
def stopped_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """A context in which a training run is interrupted when so many epochs are validated."""
    from geoseg.models.history import History

    ran = History.on_validation_end

    @contextmanager
    def stopped(epochs: int) -> Iterator[None]:
        def interrupt(self: Any, trainer: Any, task: Any) -> None:
            ran(self, trainer, task)
            if len(self.rows) == epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(History, "on_validation_end", interrupt)
            with pytest.raises(KeyboardInterrupt):
                yield

    return stopped

"""How a trainer's end is told."""

from __future__ import annotations

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from geoseg.errors import Terminated
from geoseg.training.manners import interruptible


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [(SIGTERMException(), Terminated), (SystemExit(1), KeyboardInterrupt), (SystemExit(3), SystemExit)],
)
def test_an_interrupted_run_is_no_run_that_is_done(raised: BaseException, wanted: type[BaseException]) -> None:
    with pytest.raises(wanted), interruptible():
        raise raised

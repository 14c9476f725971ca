"""A bar on a terminal, silence elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from geoseg.progress import RANKS, is_first_process, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_bar_on_a_terminal_only(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    with progress_bar("predict") as tick:
        tick(1, 4)
        tick(4, 4)
    assert ("predict" in shown.getvalue()) == (stream is Terminal)


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),  # torchrun
        ({"RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),  # on a second machine
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),  # within srun, which counts otherwise
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # a batch script whose trainer starts processes itself
        ({"OMPI_COMM_WORLD_RANK": "2"}, False),
    ],
)
def test_the_first_of_several_processes(monkeypatch: pytest.MonkeyPatch, *, said: dict[str, str], first: bool) -> None:
    for name in ("RANK", *RANKS):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first

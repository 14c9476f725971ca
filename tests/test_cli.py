"""The command line: options from signatures, one line and exit code 2 for what the user can mend."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg import cli
from geoseg.errors import InputError


def verb(
    scene: list[str | dict[str, Any]] | str,
    *,
    out: Path,
    min_area_m2: float = 0.0,
    overwrite: bool = False,
    mode: Literal["a", "b"] = "a",
    region: str | dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what was given.

    Args:
        scene: The files.
        out: The output.
        min_area_m2: The smallest area.
        overwrite: Whether to overwrite.
        mode: A choice.
        region: A place.
    """
    return {"scene": scene, "out": out, "area": min_area_m2, "over": overwrite, "mode": mode, "region": region}


def test_subjects_dashes_and_bare_flags() -> None:
    found = cli.call(verb, ["a.tif", "--min-area-m2", "5", "b.tif", "--overwrite", "--out=o.tif"], name="verb")
    assert found["scene"] == ["a.tif", "b.tif"]
    assert (found["out"], found["area"], found["over"]) == (Path("o.tif"), 5.0, True)


def test_a_mapping_can_be_an_option() -> None:
    found = cli.call(verb, ["a.tif", "--out", "o", "--region", "{cols: [708, null]}"], name="verb")
    assert found["region"] == {"cols": [708, None]}


def test_options_from_a_file_and_the_command_line_wins(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("scene: [{stack: [a.tif, b.tif]}]\nout: o.tif\nmin_area_m2: 3\nmode: b\n")
    found = cli.call(verb, ["--config", str(config), "--min-area-m2", "7"], name="verb")
    assert found["scene"] == [{"stack": ["a.tif", "b.tif"]}]
    assert (found["area"], found["mode"]) == (7.0, "b")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a.tif"], "out"),
        (["a.tif", "--out", "o", "--typo", "3"], "typo"),
        (["a.tif", "--out", "o", "--min-area-m2", "big"], "--min-area-m2 does not fit; needed is float"),
        (["a.tif", "--out", "o", "--mode", "c"], "mode"),
        (["a.tif", "--out"], "needs a value"),
        (["--out", "o"], "scene"),
    ],
)
def test_arguments_that_do_not_fit(args: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        cli.call(verb, args, name="verb")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_config(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("outt: o.tif\n")
    with pytest.raises(InputError, match="outt"):
        cli.call(verb, ["a.tif", "--config", str(config)], name="verb")


def test_help_shows_options_as_people_type_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.call(verb, ["--help"], name="verb")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "--min-area-m2" in text
    assert "The smallest area." in text


def test_an_unknown_verb_is_one_line_and_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mapp"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "mapp" in shown
    assert "predict" in shown


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert cli.main(["--version"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.VERBS)


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(name: str, args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", stop)
    assert cli.main(["predict"]) == 130
    assert "kept" in capsys.readouterr().err


def test_a_trainer_ends_its_own_way(monkeypatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "_run", lambda *_: seen.append(signal.getsignal(signal.SIGTERM)) or 0)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["fit"]) == cli.main(["info"]) == 0
    assert seen[0] is before
    assert seen[1] is not before


def test_a_termination_is_an_interrupt_with_its_own_code(monkeypatch, capsys) -> None:
    def ask_to_end(name: str, args: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return 0

    monkeypatch.setattr(cli, "_run", ask_to_end)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["info", "a.tif"]) == 143
    assert "interrupted; what was finished is kept" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@given(st.lists(st.text("abc.tif/", min_size=1), min_size=2, max_size=5))
def test_every_bare_word_is_a_subject(words: list[str]) -> None:
    found = cli.call(verb, [*words, "--out", "o"], name="verb")
    assert found["scene"] == words


def one(class_map: Path, *, out: Path) -> Path:
    """Return the path.

    Args:
        class_map: One file.
        out: The output.
    """
    return class_map


def test_a_verb_of_one_subject_takes_one() -> None:
    assert cli.call(one, ["a b.tif", "--out", "o"], name="one") == Path("a b.tif")
    with pytest.raises(InputError, match="unexpected argument 'c.tif'"):
        cli.call(one, ["a.tif", "c.tif", "--out", "o"], name="one")

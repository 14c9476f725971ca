"""The command line: the signatures of the verbs are the options.

`geoseg VERB SUBJECT... --option value` calls the function of that name; `--config FILE.yaml` gives options from a file.
The exit code is 0 when done, 2 with one line when the user can mend it, 130 when interrupted, 143 when terminated.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any, get_type_hints

import geoseg
from geoseg.errors import GeosegError, InputError, Terminated
from geoseg.progress import is_first_process

# First lines of the verbs' docstrings, so that `geoseg --help` need not import them; a test holds them equal.
VERBS = {
    "demo": "Run the main job end to end on a synthetic scene.",
    "fit": "Train a model on georeferenced patches and write one model file.",
    "predict": "Map whole scenes with a model file.",
    "vectorize": "Turn a class map into polygons.",
    "assess": "Compare a class map with a reference.",
    "export": "Write a model file in other formats: ONNX, a program of torch.export, a STAC Item.",
    "info": "Describe a scene, a class map, a folder of them, a training config or a model file.",
}

FUNCTIONS = {"demo": "run_demo"}  # a verb's function is named like it, but for the one that is also a module

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

logger = logging.getLogger("geoseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of running `geoseg` with these arguments (those of the process by default)."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"geoseg {geoseg.__version__}")
        return 0
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    level = os.environ.get("GEOSEG_LOG", "INFO").upper()
    logger.setLevel(level if level in LEVELS else "INFO")
    warnings.filterwarnings("ignore", "Dataset has no geotransform")  # the verbs say what they lack
    try:
        with nullcontext() if args[0] == "fit" else _ended_like_interrupted():  # a trainer has its own way to end
            return _run(args[0], args[1:])
    except GeosegError as error:
        return _refused(str(error))
    except KeyboardInterrupt as stop:
        print("geoseg: interrupted; what was finished is kept", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # the reader of our output went away, as in `geoseg info x.tif | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """A SIGTERM ends the work as Ctrl-C does: nothing half-written is left behind. A second one ends it at once."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # which has the signals
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(name: str, args: list[str]) -> int:
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        hint = f"; near it is {near[0]}" if near else ""
        raise InputError(f"'{name}' is no verb of geoseg; known are {', '.join(VERBS)}{hint}")
    verb = getattr(geoseg, FUNCTIONS.get(name, name))
    if name == "fit":  # its options are the signatures of the data module, the task and the trainer
        shown = verb(args=args)
    else:
        shown = call(verb, args, name=name)
    if shown is not None and is_first_process():
        print(shown)
    return 0


def call(verb: Callable[..., Any], args: Sequence[str], *, name: str) -> Any:
    """What `verb` returns for command-line `args`.

    Raises:
        InputError: The arguments do not fit the signature.
        SystemExit: Help was asked for and is printed.
    """
    from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser  # type: ignore[attr-defined] # it is public

    parameters = inspect.signature(verb).parameters
    subject = next((key for key, value in parameters.items() if value.kind is value.POSITIONAL_OR_KEYWORD), None)
    several = subject is not None and takes_several(verb, subject)
    flags = {key for key, value in parameters.items() if value.annotation in (bool, "bool")}
    numbers = {key for key, value in parameters.items() if "float" in str(value.annotation)}
    parser = ArgumentParser(
        prog=f"geoseg {name}",
        usage=usage(verb, name=name, subject=subject),
        description=(inspect.getdoc(verb) or "").partition("\nArgs:")[0],
        exit_on_error=False,
        print_config=None,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
    parser.add_function_arguments(verb)
    if "-h" in args or "--help" in args:
        print(_dashed(parser.format_help()))
        raise SystemExit(0)
    try:
        given = normalized(args, flags=flags, subject=subject, several=several)
        options = parser.parse_args([_as_yaml(option, numbers=numbers) for option in given])
    except ArgumentError as error:
        raise InputError(f"{name}: {_reason(error, verb)}; see geoseg {name} --help") from error
    options = parser.instantiate(options)
    options.pop("config", None)
    return verb(**vars(options))


def _reason(error: Exception, verb: Callable[..., Any]) -> str:
    """Why arguments were refused, in a line: for a value of the wrong kind the option, and what it takes."""
    text = one_line(str(error))
    stray = re.search(r"(?:[Uu]nrecognized arguments:?|ambiguous option:) --(\w+)", text)
    if stray:
        near = get_close_matches(stray[1], inspect.signature(verb).parameters, n=3, cutoff=0.5)
        hint = f"; near it are {', '.join('--' + name.replace('_', '-') for name in near)}" if near else ""
        return f"it has no option --{stray[1].replace('_', '-')}{hint}"
    key = re.search(r'[Kk]ey "?(\w+)"?:', text)
    parameter = inspect.signature(verb).parameters.get(key[1]) if key else None
    if key is None or parameter is None or "does not exist" in text:
        return text
    takes = str(parameter.annotation).replace("Literal", "one of ").replace(" | None", "").replace("'", "")
    return f"the value of --{key[1].replace('_', '-')} does not fit; needed is {takes}"


def usage(verb: Callable[..., Any], *, name: str, subject: str | None) -> str:
    """The line that shows how a verb is called: its subject, and the options that it needs."""
    parameters = inspect.signature(verb).parameters
    needed = [key for key, value in parameters.items() if value.default is value.empty and key != subject]
    several = subject is not None and takes_several(verb, subject)
    words = [f"{subject.upper()}{'...' if several else ''}"] if subject else []
    words += [f"--{key} {key.upper()}" for key in needed]
    return " ".join(["geoseg", name, *words, "[--config FILE.yaml] [options]"])


def takes_several(verb: Callable[..., Any], subject: str) -> bool:
    """Whether the verb's subject may be a list."""
    return "list" in str(get_type_hints(verb)[subject])


def normalized(args: Sequence[str], *, flags: set[str], subject: str | None = None, several: bool = True) -> list[str]:
    """Arguments with dashes in names turned to underscores, bare flags given `true`, and bare values made the subject.

    >>> normalized(["a.tif", "--min-area-m2", "5", "--overwrite"], flags={"overwrite"}, subject="scene")
    ['--min_area_m2=5', '--overwrite=true', '--scene=["a.tif"]']
    """
    out: list[str] = []
    bare: list[str] = []
    rest = list(args)
    while rest:
        token = rest.pop(0)
        if token in ("-h", "--help"):
            out.append("--help")
            continue
        if not token.startswith("--"):
            bare.append(_no_option(token))
            continue
        key, equals, value = token[2:].partition("=")
        key = key.replace("-", "_")
        if not equals:
            if key in flags:
                value = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise InputError(f"option --{key} needs a value")
        out.append(f"--{key}={value}")
    _check_once(out)
    if bare and (subject is None or (not several and len(bare) > 1)):
        raise InputError(f"unexpected argument '{bare[-1]}'; options begin with --")
    if bare:
        out.append(f"--{subject}={json.dumps(bare) if several else bare[0]}")
    return out


def _as_yaml(option: str, *, numbers: set[str]) -> str:
    """An option whose value is no number as YAML, which reads the values, writes that.

    >>> _as_yaml("--nodata=nan", numbers={"nodata"}), _as_yaml("--out=nan", numbers={"nodata"})
    ('--nodata=.nan', '--out=nan')
    """
    key, _, value = option.removeprefix("--").partition("=")
    return f"--{key}=.nan" if key in numbers and value.lower() == "nan" else option


def _no_option(token: str) -> str:
    """The token, which is a value and not an option with a single dash."""
    if re.match(r"-[A-Za-z]", token):
        raise InputError(f"option {token} is unknown; options begin with two dashes, such as --out")
    return token


def _check_once(options: Sequence[str]) -> None:
    """Nothing, where no option is given twice."""
    names = [option.partition("=")[0] for option in options]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        name = twice[0].replace("_", "-")
        raise InputError(f"option {name} is given twice; give several values with commas between")


def one_line(text: str) -> str:
    r"""The text with line breaks and runs of blanks made single blanks.

    >>> one_line("a\n   b")
    'a b'
    """
    return " ".join(text.split())


def _dashed(text: str) -> str:
    """Help text with option names as people type them."""
    return re.sub(r"--[a-z0-9_]+", lambda match: match.group().replace("_", "-"), text)


def _overview() -> str:
    lines = [f"  {name:<10} {summary}" for name, summary in VERBS.items()]
    return "\n".join(
        [
            "usage: geoseg VERB [SUBJECT...] [--config FILE.yaml] [--option VALUE ...]",
            "",
            "Satellite and aerial imagery in, land-cover maps that a GIS opens at once out.",
            "",
            *lines,
            "",
            "geoseg VERB --help shows a verb's options; geoseg --version the version.",
        ]
    )


def _refused(message: str) -> int:
    print(f"geoseg: error: {one_line(message)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

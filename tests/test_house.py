"""The house as ARCHITECTURE describes it: what importing loads, and where imports stand."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import geoseg
from geoseg import cli

PACKAGE = Path(geoseg.__file__).parent
HEAVY = {"torch", "lightning", "geopandas", "dask", "matplotlib", "rasterio", "scipy", "numba", "pandas", "timm"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.strip(' "[]') for name in run.stdout.splitlines()[-1].split(",")}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("import geoseg")


def test_help_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("from geoseg.cli import main; main(['--help'])")


def test_the_verbs_load_no_network_library_before_they_run() -> None:
    assert not {"torch", "lightning", "geopandas", "matplotlib"} & loaded_by("from geoseg.pipeline import predict")


def test_a_network_without_an_encoder_needs_no_library_of_encoders() -> None:
    building = "create_model(ModelSpec(decoder='pixel_mlp', bands=4, classes=2))"
    loaded = loaded_by(f"import geoseg.infer.scene; from geoseg.models import ModelSpec, create_model; {building}")
    assert "torch" in loaded
    assert not {"timm", "segmentation_models_pytorch", "torchvision", "torch._dynamo", "lightning"} & loaded


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_of_the_own_package_inside_a_function(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    modules = [
        name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names])
    ]
    assert not [name for name in modules if name.split(".")[0] == "geoseg"]


@pytest.mark.parametrize("name", cli.VERBS)
def test_the_overview_says_what_the_verbs_docstring_says(name: str) -> None:
    verb = getattr(geoseg, cli.FUNCTIONS.get(name, name))
    assert (inspect.getdoc(verb) or "").splitlines()[0] == cli.VERBS[name]


@pytest.mark.parametrize("name", [name for name in cli.VERBS if name != "fit"])
def test_every_option_of_a_verb_is_described(name: str) -> None:
    verb = getattr(geoseg, cli.FUNCTIONS.get(name, name))
    text = inspect.getdoc(verb) or ""
    for option in inspect.signature(verb).parameters:
        assert f"    {option}: " in text

"""What changes when the files behind a source do."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from geoseg.io.stamps import file_stamps, unsigned


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with ZipFile("a.zip", "w") as archive:
        archive.writestr("in/b.tif", "pixels")
    Path("cube.nc").write_text("values")
    Path("cube.zarr/red/c").mkdir(parents=True)
    Path("cube.zarr/red/c/0").write_text("chunk")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.zip", "a.zip"),
        ("/vsizip/a.zip/in/b.tif", "a.zip"),
        ("/vsizip/{{{}/a.zip}}/in/b.tif", "a.zip"),
        ("zip://a.zip!in/b.tif", "a.zip"),
        ("zip+file://{}/a.zip!/in/b.tif", "a.zip"),
        ("/vsigzip//vsizip/{}/a.zip/in/b.tif.gz", "a.zip"),
        ("/vsisubfile/100_200,a.zip", "a.zip"),
        ("NETCDF:cube.nc:red", "cube.nc"),
        ('HDF5:"{}/cube.nc"://red', "cube.nc"),
        ("GTIFF_DIR:2:cube.nc", "cube.nc"),
    ],
)
def test_a_name_within_a_file_changes_with_the_file(files: Path, name: str, file: str) -> None:
    path = name.format(files)
    before = file_stamps([path])[path]
    assert before == [(files / file).stat().st_size, (files / file).stat().st_mtime_ns]
    os.utime(file, ns=(5, 7))
    assert file_stamps([path])[path] == [before[0], 7]


def test_a_folder_changes_with_any_file_in_it(files: Path) -> None:
    chunk = Path("cube.zarr/red/c/0")
    before = file_stamps(["cube.zarr"])
    os.utime(chunk, ns=(0, chunk.stat().st_mtime_ns + 1))
    touched = file_stamps(["cube.zarr"])
    assert touched != before
    chunk.write_text("longer chunk")
    assert file_stamps(["cube.zarr"]) not in (before, touched)


@pytest.mark.parametrize(
    "path", ["https://host/a.tif", "/vsicurl/https://host/a.tif", "absent.tif", "s3://b/k.tif", ""]
)
def test_what_is_not_here_has_no_stamp(files: Path, path: str) -> None:
    assert file_stamps([path]) == {path: None}


@pytest.mark.parametrize(
    ("signed", "plain"),
    [
        ("https://h/a.tif?sv=2021&se=2026-01-01&sr=b&sp=r&sig=x%3D", "https://h/a.tif"),
        ("https://h/a.tif?X-Amz-Date=1&id=3&X-Amz-Signature=2", "https://h/a.tif?id=3"),
        ("https://h/a.tif?X-Goog-Signature=2&token=9&v=1", "https://h/a.tif?v=1"),
        ("https://h/wms?service=WCS&coverage=b", "https://h/wms?service=WCS&coverage=b"),
        ("https://h/image?sr=4326&st=1", "https://h/image?sr=4326&st=1"),  # of no signature
        ("plain.tif", "plain.tif"),
    ],
)
def test_an_address_is_kept_without_what_signs_it(signed: str, plain: str) -> None:
    assert unsigned(signed) == plain

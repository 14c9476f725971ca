"""A layer in a file is an array, in what it holds and what may be written, and to all processes; but not in memory."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.data import arrays
from geoseg.data.arrays import OPEN_MAPS, BlockArray, copy_window, create_file, kept_dtype, layer_bytes, spans
from geoseg.data.scene import BLOCK_PX
from geoseg.errors import ReadError
from geoseg.tiling import Window

DTYPES = ("uint8", "bool", "int16", "uint16", "int32", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("layers")


def positions(shape, dtype="int32"):
    """Values that tell band, row and column."""
    band, row, col = np.indices((1, *shape)[-3:])
    return (band * 1_000_003 + row * 1009 + col).astype(dtype).reshape(shape)


def stored(path: Path, values) -> BlockArray:
    made = BlockArray.create(path, shape=values.shape, dtype=values.dtype)
    made[(slice(None),) * values.ndim] = values
    return made


@st.composite
def slices(draw, size):
    """A slice of step 1, as people write them: open ends, from the end, empty, beyond the end."""
    ends = st.one_of(st.none(), st.integers(-size - 3, size + 3))
    return slice(draw(ends), draw(ends), draw(st.sampled_from([None, 1])))


@given(st.data())
def test_reads_and_writes_are_those_of_an_array(folder, data):
    shape = data.draw(st.sampled_from([(1, 1), (255, 300), (256, 512), (520, 30), (2, 257, 257), (3, 300, 270)]))
    dtype = data.draw(st.sampled_from(DTYPES))
    fill = data.draw(st.sampled_from([0, 1]))
    layer = BlockArray.create(folder / "random.blocks", shape=shape, dtype=dtype, fill=fill)
    twin = np.full(shape, fill, dtype)
    for number in range(data.draw(st.integers(1, 5))):
        key = tuple(data.draw(slices(size)) for size in shape)
        values = (np.arange(twin[key].size).reshape(twin[key].shape) * 7 + number).astype(dtype)
        values = data.draw(st.sampled_from([values, 1]))
        layer[key], twin[key] = values, values
        asked = tuple(data.draw(slices(size)) for size in shape)
        np.testing.assert_array_equal(layer[asked], twin[asked], strict=True)
    every = (slice(None),) * len(shape)
    np.testing.assert_array_equal(BlockArray.open(layer.path)[every], twin, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [(0, 0, 256, 256), (130, 200, 256, 256), (255, 255, 2, 2), (300, 500, 244, 60)])
def test_a_window_is_copied_whole_wherever_it_goes(folder, dtype, place):
    values = positions((3, 544, 560), dtype)
    layer, window = stored(folder / "window.blocks", values), Window(*place)
    wanted = values[:, *window.slices]
    whole = np.empty(wanted.shape, dtype)
    wider = np.empty((3, window.rows + 2, window.cols + 2), dtype)[:, 1:-1, 1:-1]  # not C-contiguous
    converted = np.empty(wanted.shape, np.float64)
    for out in (whole, wider, converted):
        assert layer.copy_into(out, window) == ()
        np.testing.assert_array_equal(out, wanted)


def test_a_window_is_copied_from_any_kind_of_layer(folder):
    values, window = positions((2, 300, 300)), Window(100, 50, 180, 200)

    class Sliced:
        """A layer of another make."""

        shape, dtype = values.shape, values.dtype

        def __getitem__(self, key):
            return values[key]

    for layer in (values, stored(folder / "any.blocks", values), Sliced()):
        out = np.empty((2, 180, 200), values.dtype)
        assert copy_window(layer, out, window) == ()
        np.testing.assert_array_equal(out, values[:, *window.slices])


def test_the_pixels_of_a_block_lie_together_and_nothing_is_padded(folder):
    values = positions((2, 300, 270))
    layer = stored(folder / "layout.blocks", values)
    raw = np.fromfile(layer.path, np.int32, offset=arrays.HEADER_BYTES)
    assert raw.size == values.size
    cuts = [values[:, top : top + BLOCK_PX, left : left + BLOCK_PX] for top in (0, 256) for left in (0, 256)]
    np.testing.assert_array_equal(raw, np.concatenate([cut.ravel() for cut in cuts]))


@pytest.mark.parametrize("key", [0, slice(None), (slice(None), 3), (slice(0, 9, 2), slice(None)), (..., slice(0, 1))])
def test_only_one_slice_of_step_one_an_axis_is_taken(folder, key):
    layer = BlockArray.create(folder / "keys.blocks", shape=(20, 20), dtype=np.uint8)
    with pytest.raises(IndexError, match="sliced by"):
        layer[key]
    with pytest.raises(IndexError):
        layer[key] = 1
    assert spans((slice(None), slice(5, 2)), (20, 20)) == [slice(0, 20), slice(5, 5)]


def test_values_that_do_not_fit_are_refused_as_by_an_array(folder):
    layer = BlockArray.create(folder / "fit.blocks", shape=(20, 20), dtype=np.uint8)
    with pytest.raises(OverflowError):
        layer[:, :] = 300
    with pytest.raises(ValueError, match="broadcast"):
        layer[:, :] = np.zeros((3, 3), np.uint8)


def test_a_layer_opened_to_read_cannot_be_written(folder):
    path = stored(folder / "readonly.blocks", positions((40, 40))).path
    with pytest.raises(ValueError, match="read-only"):
        BlockArray.open(path)[0:1, 0:1] = 5
    writable = BlockArray.open(path, writable=True)
    writable[0:1, 0:1] = 5
    assert BlockArray.open(path)[0:1, 0:1] == 5


def test_a_layer_is_pickled_by_its_path_and_shared_with_other_processes(folder):
    layer = stored(folder / "shared.blocks", positions((3, 500, 500)))
    pickled = pickle.dumps(layer)
    assert len(pickled) < 500
    code = (
        "import pickle, sys; layer = pickle.loads(sys.stdin.buffer.read());"
        "assert layer[2:3, 400:401, 10:11] == 2000006 + 400 * 1009 + 10; layer[0:1, 7:8, 9:10] = -5"
    )
    subprocess.run([sys.executable, "-c", code], input=pickled, check=True)
    assert layer[0:1, 7:8, 9:10] == -5


def test_a_new_layer_of_the_same_name_is_not_taken_for_the_old_one(folder):
    path = folder / "again.blocks"
    old = stored(path, positions((30, 30)))
    assert old[5:6, 5:6] == 5 * 1009 + 5
    path.unlink()
    stored(path, np.zeros((30, 30), np.int32))
    assert BlockArray.open(path)[5:6, 5:6] == 0


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "gone", "header"])
def test_what_is_no_complete_layer_is_refused(tmp_path, damage):
    path = stored(tmp_path / "x.blocks", positions((300, 300))).path
    data = path.read_bytes()
    path.unlink()
    changed = {
        "cut": data[:-1], "other": b"II*\0" + data[4:], "empty": b"", "header": data.replace(b"blocks 1", b"blocks 9")
    }  # fmt: skip
    if damage in changed:
        path.write_bytes(changed[damage])
    with pytest.raises(ReadError, match=r"x\.blocks is"):
        BlockArray.open(path)


def test_a_full_disk_is_an_error_when_the_layer_is_made_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        BlockArray.create(tmp_path / "x.blocks", shape=(300, 300), dtype=np.uint8)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_really_full_is_an_error_too(small_disk):
    with pytest.raises(OSError, match="No space left"):
        BlockArray.create(small_disk / "x.blocks", shape=(3000, 3000), dtype=np.uint8)
    assert not list(small_disk.iterdir())
    assert stored(small_disk / "y.blocks", positions((100, 100)))[99:, 99:] == 99 * 1009 + 99


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; the test skips where it cannot be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("kind", ["refused", "absent"])
def test_where_space_cannot_be_reserved_zeros_are_written(tmp_path, monkeypatch, kind):
    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "not here")

    if kind == "refused":
        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    size = (2 << 20) + 77
    create_file(tmp_path / "x", size, start=b"head")
    assert (tmp_path / "x").stat().st_blocks * 512 >= size
    assert (tmp_path / "x").read_bytes() == b"head" + bytes(size - 4)


def test_few_files_are_open_however_many_layers_there_are(tmp_path):
    layers = [stored(tmp_path / f"{k}.blocks", np.full((5, 5), k, np.int32)) for k in range(OPEN_MAPS + 40)]
    open_before = len(arrays.MAPS._maps)
    assert open_before <= OPEN_MAPS
    assert [int(layer[4:, 4:][0, 0]) for layer in layers] == list(range(OPEN_MAPS + 40))
    assert len(arrays.MAPS._maps) <= OPEN_MAPS


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_what_is_touched(tmp_path):
    code = f"""
import numpy as np
from pathlib import Path
from geoseg.data.arrays import BlockArray
from geoseg.tiling import Window

def memory_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

layer = BlockArray.create(Path({str(tmp_path)!r}) / "large.blocks", shape=(4, 12288, 12288), dtype=np.uint16)
out = np.empty((4, 1024, 1024), np.uint16)
before, most = memory_mb(), 0
for top in range(0, 12288, 1024):
    for left in range(0, 12288, 1024):
        layer[:, top : top + 1024, left : left + 1024] = top
        layer.copy_into(out, Window(top, left, 1024, 1024))
        assert (out == top).all()
        most = max(most, memory_mb() - before)
print(most)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 400  # of 1152 MB, all of them written and read
    assert layer_bytes((4, 12288, 12288), np.uint16) > 1152 << 20


@pytest.mark.parametrize(
    ("dtype", "kept"), [("uint8", "uint8"), ("uint16", "uint16"), ("int8", "int16"), ("bool", "uint8"),
                        ("uint32", "float32"), ("float64", "float32")]
)  # fmt: skip
def test_pixels_keep_the_dtype_that_torch_has(dtype, kept):
    assert kept_dtype(np.dtype(dtype)) == np.dtype(kept)

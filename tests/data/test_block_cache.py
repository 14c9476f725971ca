"""A cache of blocks is its source, however few blocks it keeps and however many processes use it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.data.block_cache import BlockCache, BlockPool, blocks_of
from geoseg.errors import ReadError
from geoseg.tiling import Window

SUPPORT = Path(__file__).parent / "support"
BLOCK_BYTES = 2 * 256 * 256 * 2


@pytest.fixture(scope="module")
def made_up():
    """The module of made-up sources."""
    sys.path.insert(0, str(SUPPORT))
    import made_up

    sys.path.remove(str(SUPPORT))
    return made_up


@pytest.fixture
def cached(made_up, tmp_path, monkeypatch):
    """A function that makes a cache of a made-up scene."""
    monkeypatch.setenv("GEOSEG_TEST_READS", str(tmp_path / "reads"))

    def make(rows=600, cols=700, *, slots=3, folder="pool", **options):
        broken = options.pop("broken", None)
        place = tmp_path / folder
        place.mkdir()
        blocks = blocks_of((rows, cols))
        pool = BlockPool.create(place, slots=slots, slot_bytes=BLOCK_BYTES, blocks=blocks)
        grid = made_up.grid_of(rows, cols)
        source = made_up.MadeUp(grid, broken=broken)
        return BlockCache(pool, 0, source=source, grid=grid, dtype=np.uint16, name="north", **options)

    return make


@pytest.fixture
def reads(tmp_path):
    """A function that says what was read: process, row, column, rows, columns."""

    def said():
        path = tmp_path / "reads"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return said


def whole(cache):
    rows, cols = cache.shape[1:]
    return cache.source.values(np.arange(rows)[:, None], np.arange(cols)[None])


@given(st.data())
def test_random_access_gives_the_source(made_up, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("pool")
    rows, cols = data.draw(st.sampled_from([(1, 1), (256, 513), (600, 300)]))
    slots, unit = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([(1, 1), (2, 2), (1, 3)]))
    pool = BlockPool.create(folder, slots=slots, slot_bytes=BLOCK_BYTES, blocks=blocks_of((rows, cols)))
    grid = made_up.grid_of(rows, cols)
    cache = BlockCache(pool, 0, source=made_up.MadeUp(grid), grid=grid, dtype=np.uint16, name="a", unit=unit)
    truth = whole(cache)
    for _ in range(6):
        key = tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in truth.shape)
        np.testing.assert_array_equal(cache[key], truth[key], strict=True)


def test_several_processes_see_no_other_blocks_pixels(cached):
    cache = cached(slots=2)  # nine blocks, so that slots change hands all the time
    command = [sys.executable, str(SUPPORT / "read_cache.py")]
    runs = [
        subprocess.Popen([*command, str(seed), "120"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for seed in range(3)
    ]
    for run in runs:
        run.stdin.write(pickle.dumps(cache))
        run.stdin.close()
    for run in runs:
        assert json.loads(run.stdout.read()) == {"wrong": 0, "missing": 0}
        run.stdout.close()
        assert run.wait() == 0


def test_a_block_is_decoded_once_as_long_as_it_is_kept(cached, reads):
    cache = cached(slots=9)
    for _ in range(3):
        np.testing.assert_array_equal(cache[:, :, :], whole(cache))
    assert len(reads()) == 9


def test_processes_that_want_one_block_decode_it_once(cached, reads, monkeypatch):
    cache = cached(200, 200, slots=1)
    monkeypatch.setenv("GEOSEG_TEST_READ_S", "1.5")
    command = [sys.executable, str(SUPPORT / "read_cache.py"), "0", "2"]
    runs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for run in runs:
        run.stdin.write(pickle.dumps(cache))
        run.stdin.close()
    for run in runs:
        assert json.loads(run.stdout.read())["wrong"] == 0
        run.stdout.close()
        assert run.wait() == 0
    assert len(reads()) == 1


def test_the_block_used_least_recently_goes_first(cached, reads):
    cache = cached(256, 1024, slots=3)

    def touch(block):
        before = len(reads())
        cache[0:1, 0:1, block * 256 : block * 256 + 1]
        return len(reads()) - before

    assert [touch(block) for block in (0, 1, 2, 0, 3)] == [1, 1, 1, 0, 1]  # 3 takes the place of 1
    assert [touch(block) for block in (0, 2, 3)] == [0, 0, 0]
    assert touch(1) == 1


def test_blocks_that_the_file_holds_together_are_read_together(cached, reads):
    cache = cached(600, 700, slots=9, unit=(2, 2))
    assert cache[1:2, 300:301, 400:401] == 300 * 3 + 400 * 7 + 1000
    assert [read[1:] for read in reads()] == [[0, 0, 512, 512]]
    np.testing.assert_array_equal(cache[:, :, :], whole(cache))
    assert sorted(read[1:] for read in reads()[1:]) == [[0, 512, 512, 188], [512, 0, 88, 512], [512, 512, 88, 188]]


def test_what_was_read_anyway_is_kept_while_there_is_room(cached, reads):
    cache = cached(600, 700, slots=2)
    cache.offer(Window(100, 0, 500, 700), whole(cache)[:, 100:])
    assert not reads()
    assert [cache.pool.has(block) for block in range(9)] == [False] * 3 + [True] * 2 + [False] * 4
    np.testing.assert_array_equal(cache[:, 256:512, 0:512], whole(cache)[:, 256:512, 0:512])
    assert not reads()


def test_what_changes_while_it_is_copied_is_thrown_away(cached):
    cache = cached(slots=1)
    cache[:, 0:1, 0:1]

    def intruder(_):
        cache.pool.put(1, np.zeros((2, 256, 256), np.uint16))

    assert not cache.pool.take(0, intruder, touching=0)
    assert cache.pool.take(1, lambda _: None, touching=0)


@pytest.mark.parametrize("moment", ["begun", "owner", "where"])
def test_a_writer_that_was_killed_leaves_nothing_that_is_believed(cached, moment):
    cache = cached(slots=1)
    cache[:, 0:1, 0:1]
    pool = cache.pool
    pool._changes[0] |= 1  # as far as a writer of block 1 has come
    if moment != "begun":
        pool._where[0] = -1
        pool._owner[0] = 1
    if moment == "where":
        pool._where[1] = 0
    pool._bytes(0, touching=0)[:1000] = 99
    assert not pool.has(0)
    assert not pool.has(1)
    np.testing.assert_array_equal(cache[:, :, :], whole(cache))
    assert not pool._changes[0] & 1


def test_a_scene_that_cannot_be_read_is_named(cached):
    cache = cached(broken=(300, 300, 10))
    np.testing.assert_array_equal(cache[:, :256, :], whole(cache)[:, :256])
    with pytest.raises(ReadError, match=r"^scene north cannot be read at rows 256 to 512, .*no such luck.*skip"):
        cache[:, :, :]


@pytest.mark.parametrize("unit", [(1, 1), (2, 2)])
def test_what_cannot_be_read_is_zeros_and_told_and_counted_once(cached, reads, unit):
    cache = cached(broken=(300, 300, 10), on_error="skip", slots=9, unit=unit)
    expected = whole(cache)
    expected[:, 256:512, 256:512] = 0
    out = np.empty((2, 350, 350), np.uint16)
    assert cache.copy_into(out, Window(200, 150, 350, 350)) == (Window(256, 256, 256, 244),)
    np.testing.assert_array_equal(out, expected[:, 200:550, 150:500])
    np.testing.assert_array_equal(cache[:, :, :], expected)
    tried = len(reads())
    command = [sys.executable, str(SUPPORT / "read_cache.py"), "0", "30"]
    run = subprocess.run(command, input=pickle.dumps(cache), capture_output=True, check=True)
    assert json.loads(run.stdout)["wrong"] == 0
    assert json.loads(run.stdout)["missing"] > 0
    assert len(reads()) == tried  # nobody tries again
    (failure,) = cache.pool.failures()
    assert failure[:2] == ("north", Window(256, 256, 256, 256))
    assert "no such luck" in failure.reason


def test_a_failure_in_another_process_is_counted_here(cached, tmp_path, monkeypatch):
    cache = cached(on_error="skip", slots=1)
    monkeypatch.setenv("GEOSEG_TEST_BROKEN", str(tmp_path / "broken"))
    (tmp_path / "broken").touch()
    command = [sys.executable, str(SUPPORT / "read_cache.py"), "1", "40"]
    run = subprocess.run(command, input=pickle.dumps(cache), capture_output=True, check=True)
    assert json.loads(run.stdout)["wrong"] == 0
    assert 1 <= len(cache.pool.failures()) <= 9
    assert {failure.scene for failure in cache.pool.failures()} == {"north"}


def test_windows_given_up_before_are_not_tried(cached, reads):
    cache = cached(slots=9, on_error="skip")
    hidden = Window(256, 0, 256, 256)
    cache.offer(Window(0, 0, 600, 700), whole(cache), unreadable=[hidden])
    out = np.empty((2, 600, 700), np.uint16)
    assert cache.copy_into(out, Window(0, 0, 600, 700)) == (hidden,)
    assert not reads()
    assert not cache.pool.failures()  # who gave it up has counted it


def test_scenes_share_a_pool(made_up, tmp_path):
    pool = BlockPool.create(tmp_path, slots=2, slot_bytes=BLOCK_BYTES, blocks=8)
    grids = [made_up.grid_of(512, 512), made_up.grid_of(300, 500)]
    caches = [
        BlockCache(pool, first, source=made_up.MadeUp(grid), grid=grid, dtype=np.uint16, name="s")
        for first, grid in zip((0, 4), grids, strict=True)
    ]
    for _ in range(2):
        for cache in caches:
            np.testing.assert_array_equal(cache[:, :, :], whole(cache))


def test_it_cannot_be_written_and_is_pickled_small(cached):
    cache = cached()
    with pytest.raises(TypeError, match="cannot be written"):
        cache[:, :, :] = 1
    assert len(pickle.dumps(cache)) < 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_goes_on_with_the_same_blocks(cached, reads):
    cache = cached(slots=9)
    np.testing.assert_array_equal(cache[:, :, :], whole(cache))
    child = os.fork()
    if not child:
        os._exit(0 if (cache[:, :, :] == whole(cache)).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(reads()) == 9

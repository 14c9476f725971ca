"""The same patches for any number of workers and processes, none twice, classes and scenes at their rates."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from scipy import stats
from torch.utils.data import DataLoader

from geoseg.data import sampling
from geoseg.data.label_index import LabelIndex
from geoseg.data.sampling import PatchBatches, PatchSampler, SamplingOptions
from geoseg.data.scene import TRAINING, VALIDATION
from geoseg.data.strategies import SAMPLERS
from geoseg.errors import InputError

NAMES = ("water", "forest", "road")

TWO_PROCESSES = """
import sys
import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import distributed
from torch.utils.data import DataLoader
from geoseg.data.label_index import LabelIndex
from geoseg.data.sampling import PatchBatches, PatchSampler, SamplingOptions
from geoseg.data.scene import TRAINING, SceneArrays

def main(folder, rank, world):
    shared = {} if world == 1 else {"init_method": f"file://{folder}/meet", "rank": rank, "world_size": world}
    if shared:
        distributed.init_process_group("gloo", **shared)
    scenes = []
    for number, (rows, cols) in enumerate([(300, 200), (150, 260)]):
        row, col = np.indices((rows, cols), np.int32)
        grid = GeoBox((rows, cols), Affine(10, 0, 5e5, 0, -10, 5e6), "EPSG:32633")
        usable, labels = np.ones((rows, cols), bool), (row // 40 % 3).astype(np.uint8)
        pixels = np.stack([np.full_like(row, number), row, col])
        part = np.full((rows, cols), TRAINING, np.uint8)
        scenes.append(SceneArrays(str(number), pixels, usable, labels, part, grid, ("s", "r", "c"), 255, grid))
    shares = {"grid": 0.2, "balanced": 0.3, "labelled": 0.2, "random": 0.2, "hard": 0.1}
    sampler = PatchSampler(
        scenes, LabelIndex.of(scenes, classes=3), options=SamplingOptions(shares=shares), class_names=list("abc"),
        patch_px=32, batch=6, epoch_patches=99, seed=4,
    )
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        for workers in (0, 2):
            batches = PatchBatches(scenes, patch_px=32, part=TRAINING)
            loader = DataLoader(batches, sampler=sampler, batch_size=None, num_workers=workers,
                                multiprocessing_context="fork" if workers else None)
            seen = [batch["image"][:, :, 0, 0].numpy() for batch in loader]
            assert len(seen) == len(sampler) == len(loader)
            np.savez(f"{folder}/{world}-{rank}-{epoch}-{workers}.npz", *seen)
    if shared:
        distributed.destroy_process_group()

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def scenes(decoded):
    """Class 0 nearly everywhere, class 1 in one corner, class 2 in the second scene alone."""
    first, second = np.zeros((300, 200), np.uint8), np.zeros((100, 120), np.uint8)
    first[:20, :20] = 1
    second[40:50, 60:70] = 2
    return [decoded(first), decoded(second)]


def sampler(scenes, shares=None, *, area=None, **given_options) -> PatchSampler:
    of_draw = {"shares": shares or {"labelled": 0.5, "balanced": 0.5}}
    of_draw |= {key: given_options.pop(key) for key in ("rates", "jitter_px") if key in given_options}
    index = LabelIndex.of(scenes, classes=3, area=area)
    own = {"class_names": NAMES, "patch_px": 32, "batch": 4, "epoch_patches": 32, "seed": 0, **given_options}
    return PatchSampler(scenes, index, options=SamplingOptions(**of_draw), **own)


def middles(windows, patch_px: int = 32):
    """The pixels that the windows were laid around, if they were neither jittered nor moved."""
    return windows[:, 0], windows[:, 1] + patch_px // 2, windows[:, 2] + patch_px // 2


def test_the_seed_and_the_epoch_say_which_patches(scenes):
    shares = dict.fromkeys(SAMPLERS, 0.2)
    one, same, other = sampler(scenes, shares), sampler(scenes, shares), sampler(scenes, shares, seed=1)
    np.testing.assert_array_equal(one.draw(3), same.draw(3))
    np.testing.assert_array_equal(one.draw(3), np.concatenate(list(_at(same, 3))))
    assert (one.draw(3) != one.draw(4)).any()
    assert (one.draw(3) != other.draw(3)).any()


def _at(drawn: PatchSampler, epoch: int) -> PatchSampler:
    drawn.set_epoch(epoch)
    return drawn


def test_the_order_of_the_shares_does_not_matter(scenes):
    one = sampler(scenes, {"labelled": 0.5, "grid": 0.25, "random": 0.25})
    other = sampler(scenes, {"random": 1, "labelled": 2, "grid": 1, "hard": 0})
    np.testing.assert_array_equal(one.draw(0), other.draw(0))


def test_two_processes_share_an_epoch_of_one_whatever_their_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES, "utf-8")
    runs = [(0, 1), (0, 2), (1, 2)]
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(rank), str(world)],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        )
        for rank, world in runs
    ]  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    for epoch in (0, 1):
        alone, *pair = ([_saved(tmp_path, run, epoch, workers) for workers in (0, 2)] for run in runs)
        for no_worker, two_workers in (alone, *pair):
            np.testing.assert_array_equal(np.concatenate(no_worker), np.concatenate(two_workers))
        whole, *parts = (np.concatenate(without) for without, _ in (alone, *pair))
        keys = [{tuple(window) for window in windows.tolist()} for windows in (whole, *parts)]
        assert [len(own) for own in keys] == [99, *(len(part) for part in parts)]  # none twice
        assert not keys[1] & keys[2]
        assert keys[1] | keys[2] == keys[0]
        assert len(pair[0][0]) == len(pair[1][0])  # the same number of batches


def _saved(folder, run, epoch, workers):
    with np.load(folder / f"{run[1]}-{run[0]}-{epoch}-{workers}.npz") as kept:
        return [kept[name] for name in kept.files]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 9), st.integers(1, 7))
def test_processes_take_turns_in_the_list_of_one(scenes, epoch_patches, batch, world):
    drawn = sampler(scenes, batch=batch, epoch_patches=epoch_patches)
    whole, shares = drawn.draw(0), []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(world):
            patch.setattr(sampling, "_process", lambda rank=rank: (rank, world))
            if epoch_patches < world:
                with pytest.raises(InputError, match="processes"):
                    len(drawn)
                return
            shares.append(list(drawn))
            assert len(drawn) == len(shares[0]) == len(shares[-1])
    steps = [np.empty((sum(map(len, step)), 3), np.int64) for step in zip(*shares, strict=True)]
    for step, parts in zip(steps, zip(*shares, strict=True), strict=True):
        for rank, part in enumerate(parts):
            assert 1 <= len(part) <= batch + 1
            step[rank::world] = part
    np.testing.assert_array_equal(np.concatenate(steps), whole)


def test_workers_cut_the_same_batches(scenes):
    batches, runs = PatchBatches(scenes, patch_px=32, part=TRAINING), []
    for workers in (0, 2):
        loader = DataLoader(
            batches, sampler=sampler(scenes), batch_size=None, num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )  # fmt: skip
        runs.append(list(loader))
    assert len(runs[0]) == len(runs[1]) == 8
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 150), st.integers(5, 150), st.sampled_from(list(SAMPLERS)), st.integers(0, 99))
def test_windows_lie_in_their_scenes_around_what_they_were_drawn_for(decoded, rows, cols, strategy, seed):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((rows, cols)) < 0.02, rng.integers(0, 3, (rows, cols)), 255).astype(np.uint8)
    labels[0, 0] = 0
    scene = decoded(labels)
    scene.part[rng.random((rows, cols)) < 0.5] = VALIDATION
    scene.part[0, 0] = TRAINING
    windows = sampler([decoded(labels[:9, :9]), scene], {strategy: 1}, seed=seed).draw(seed)
    for number, row, col in windows.tolist():
        own = (decoded(labels[:9, :9]), scene)[number]
        for off, size in zip((row, col), own.shape, strict=True):
            assert 0 <= off <= size - 32 if size >= 32 else off == (size - 32) // 2
        inside = np.s_[max(row, 0) : row + 32, max(col, 0) : col + 32]
        told = own.labels[inside] if strategy in ("labelled", "balanced", "hard") else 0
        assert ((own.part[inside] == TRAINING) & (told != 255)).any()


@pytest.mark.parametrize("strategy", SAMPLERS)
def test_no_window_comes_twice_in_an_epoch(decoded, strategy):
    labels = np.full((200, 200), 255, np.uint8)
    labels[80:84, 80:84] = 1  # a few pixels, many windows
    windows = sampler([decoded(labels)], {strategy: 1}, epoch_patches=120).draw(0)
    assert len(np.unique(windows, axis=0)) == len(windows) == 120


@pytest.mark.parametrize("strategy", ["labelled", "random", "hard", "grid"])
def test_chips_of_a_patch_each_are_shown_once_where_there_are_as_many(decoded, strategy):
    chips = [decoded(np.full((32, 32), k % 3, np.uint8)) for k in range(50)]
    windows = sampler(chips, {strategy: 1}, epoch_patches=50).draw(0)
    assert sorted(windows[:, 0].tolist()) == list(range(50))


def test_windows_repeat_where_there_are_no_others(decoded):
    chip = decoded(np.zeros((32, 40), np.uint8))
    windows = sampler([chip], epoch_patches=30).draw(0)
    assert len(windows) == 30
    assert len(np.unique(windows, axis=0)) == 9


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"labelled": 1}, [71500 / 72000, 400 / 72000, 100 / 72000]),
        ({"balanced": 1}, [1 / 3] * 3),
        ({"labelled": 3, "balanced": 1}, [0.75 * 71500 / 72000 + 1 / 12, 0.75 * 400 / 72000 + 1 / 12, 1 / 12 + 1e-3]),
    ],
)
def test_classes_are_drawn_at_their_rates(scenes, shares, expected):
    windows = sampler(scenes, shares, patch_px=1, epoch_patches=3000, seed=2).draw(0)
    told = [scenes[scene].labels[row, col] for scene, row, col in windows.tolist()]
    counts = np.bincount(told, minlength=3)
    assert stats.chisquare(counts, np.array(expected) / sum(expected) * 3000).pvalue > 0.001


def test_named_classes_have_their_rate_and_the_others_share_the_rest(scenes):
    windows = sampler(scenes, {"balanced": 1}, rates={"road": 0.5}, patch_px=1, epoch_patches=400).draw(1)
    told = [scenes[scene].labels[row, col] for scene, row, col in windows.tolist()]
    np.testing.assert_array_equal(np.bincount(told), [100, 100, 200])


def test_a_class_of_three_pixels_in_a_large_scene_is_met_at_its_rate(decoded):
    labels = np.zeros((2500, 2500), np.uint8)
    rare = [(40, 50), (1333, 2001), (2449, 2440)]
    for row, col in rare:
        labels[row, col] = 2
    windows = sampler([decoded(labels)], {"balanced": 1}, epoch_patches=300, jitter_px=10).draw(0)
    held = np.zeros(3, int)
    for k, (row, col) in enumerate(rare):
        held[k] = ((windows[:, 1:] <= (row, col)) & (windows[:, 1:] + 32 > (row, col))).all(1).sum()
    assert 150 <= held.sum() < 160  # water and road alone are there, each has half
    assert stats.chisquare(held).pvalue > 0.001


def test_patches_are_centred_where_sparse_labels_are(decoded):
    labels = np.full((1500, 1500), 255, np.uint8)
    points = np.random.default_rng(1).integers(16, 1484, (200, 2))
    labels[tuple(points.T)] = 1
    scene = decoded(labels)
    near = sampler([scene], {"labelled": 1}, jitter_px=0, epoch_patches=150).draw(0)
    _, row, col = middles(near)
    assert (labels[row, col] == 1).all()
    anywhere = sampler([scene], {"random": 1}, jitter_px=0, epoch_patches=150).draw(0)
    _, row, col = middles(anywhere)
    assert (labels[row, col] == 1).sum() < 5


def test_a_patch_lies_within_the_jitter_of_its_pixel_all_around_it(decoded):
    labels = np.full((300, 300), 255, np.uint8)
    labels[150, 140] = 0
    windows = sampler([decoded(labels)], {"labelled": 1}, jitter_px=5, epoch_patches=115).draw(0)
    offsets = windows[:, 1:] + 16 - (150, 140)
    assert offsets.min(0).tolist() == [-5, -5]
    assert offsets.max(0).tolist() == [5, 5]


@pytest.mark.parametrize("strategy", ["labelled", "random", "hard", "balanced", "grid"])
def test_scenes_are_drawn_by_their_weight(decoded, strategy):
    kinds = [decoded(np.zeros((320, 320), np.uint8)) for _ in range(3)]
    weighted = [replace(scene, weight=weight) for scene, weight in zip(kinds, (3.0, 0.0, 1.0), strict=True)]
    counts = np.bincount(sampler(weighted, {strategy: 1}, epoch_patches=120).draw(1)[:, 0], minlength=3)
    assert counts[1] == 0
    assert stats.binomtest(int(counts[0]), 120, 0.75).pvalue > 0.001


def test_patches_lie_in_the_area(decoded):
    class West:
        def mask(self, geobox):
            col = (geobox.affine.c - 500_000) / 10 + np.arange(geobox.shape[1])
            return np.broadcast_to(col < 100, geobox.shape)

    scene = decoded(np.zeros((256, 300), np.uint8))
    for strategy in ("labelled", "random", "balanced", "hard"):
        windows = sampler([scene], {strategy: 1}, area=West(), jitter_px=0, epoch_patches=100).draw(0)
        assert (middles(windows)[2] < 100 + 16).all()  # at the edge they are moved inside the scene, eastward
        assert (middles(windows)[2] >= 16).all()
    assert sampler([scene], {"grid": 1}, area=West()).draw(0)[:, 2].max() < 100


def test_each_scene_may_have_an_area_of_its_own(decoded):
    @dataclass
    class Rows:
        stop: int

        def mask(self, geobox):
            row = (5_200_000 - geobox.affine.f) / 10 + np.arange(geobox.shape[0])[:, None]
            return np.broadcast_to(row < self.stop, geobox.shape)

    scenes = [decoded(np.zeros((256, 300), np.uint8)) for _ in range(3)]
    windows = sampler(scenes, {"random": 1}, area=[Rows(50), Rows(0), Rows(90)], jitter_px=0, epoch_patches=200).draw(0)
    scene, row, _ = middles(windows)
    assert set(scene.tolist()) == {0, 2}
    assert [row[scene == k].max() for k in (0, 2)] == [49, 89]


def test_losses_noted_in_an_epoch_count_from_the_next_one_on(scenes):
    drawn, fresh = (sampler(scenes, {"hard": 1}) for _ in range(2))
    before = drawn.draw(0)
    drawn.note(torch.from_numpy(before), torch.arange(32.0))
    np.testing.assert_array_equal(drawn.draw(0), before)
    fresh.load_state_dict(drawn.state_dict())  # stopped within the epoch
    for own in (drawn, fresh):
        own.set_epoch(0)
        np.testing.assert_array_equal(own.draw(0), before)
        own.set_epoch(1)
    np.testing.assert_array_equal(drawn.draw(1), fresh.draw(1))
    assert (drawn.draw(1) != sampler(scenes, {"hard": 1}).draw(1)).any()


def test_the_state_is_small_and_loads_without_pickle(scenes, tmp_path):
    drawn = sampler(scenes, {"hard": 0.5, "labelled": 0.5})
    drawn.set_epoch(7)
    drawn.note(drawn.draw(7), np.ones(32))
    torch.save(drawn.state_dict(), tmp_path / "state.pt")
    fresh = sampler(scenes, {"hard": 0.5, "labelled": 0.5})
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.epoch == 7
    assert sampler(scenes).state_dict() == {"epoch": 0}
    with pytest.raises(InputError, match="cells"):
        sampler(scenes[:1], {"hard": 1}).load_state_dict(drawn.state_dict())


def test_before_any_loss_is_known_hard_examples_are_labelled_ones(scenes):
    np.testing.assert_array_equal(sampler(scenes, {"hard": 1}).draw(0), sampler(scenes, {"labelled": 1}).draw(0))


def test_random_and_grid_need_no_labels(decoded):
    bare = [decoded(np.full((90, 90), 255, np.uint8))]
    assert len(sampler(bare, {"random": 1, "grid": 1}).draw(0)) == 32
    with pytest.raises(InputError, match="labelled"):
        sampler(bare, {"labelled": 1, "grid": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": {"labeled": 1}}, "'labeled'.*known are grid, balanced, hard, labelled, random"),
        ({"shares": {"labelled": -0.1, "random": 1}}, "labelled: -0.1"),
        ({"shares": {"labelled": float("nan")}}, "nan"),
        ({"shares": {"labelled": 0.0}}, "all 0"),
        ({"shares": {}}, "all 0"),
        ({"rates": {"road": -1}}, "road: -1"),
        ({"jitter_px": -1}, "jitter_px"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SamplingOptions(**options)


def test_options_that_do_not_fit_the_scenes_are_refused(scenes):
    with pytest.raises(InputError, match="jitter_px is 16: a patch of 32 px allows 15"):
        sampler(scenes, jitter_px=16)
    with pytest.raises(InputError, match=r"'forrest'.*near it are forest"):
        sampler(scenes, rates={"forrest": 0.5})
    outside = [replace(scene, weight=0.0) for scene in scenes]
    with pytest.raises(InputError, match="no training pixel to draw"):
        sampler(outside, {"random": 1})


def test_a_config_says_the_options():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--sampling", type=SamplingOptions, default=SamplingOptions())
    given_config = parser.parse_object({"sampling": {"shares": {"grid": 1}, "rates": {"road": 0.5}}})
    read = parser.instantiate(given_config).sampling
    assert read == SamplingOptions(shares={"grid": 1.0}, rates={"road": 0.5})
    assert parser.instantiate(parser.parse_args([])).sampling == SamplingOptions()

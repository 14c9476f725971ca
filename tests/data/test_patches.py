"""Patches are cut where they should be, and show what they may show, whatever holds the scene."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from geoseg.data.arrays import BlockArray
from geoseg.data.patches import gather_patches
from geoseg.data.scene import IGNORE_INDEX, TEST, TRAINING, VALIDATION
from geoseg.tiling import Window

LAYERS = ("pixels", "valid", "labels", "part")


@pytest.fixture(scope="module")
def in_files(tmp_path_factory):
    """A function that puts the layers of a scene into files."""

    def put(scene):
        folder = tmp_path_factory.mktemp("layers")
        layers = {}
        for name in (*LAYERS, *(["soft"] if scene.soft is not None else [])):
            values = getattr(scene, name)
            layer = BlockArray.create(folder / name, shape=values.shape, dtype=values.dtype)
            layer[(slice(None),) * values.ndim] = values
            layers[name] = layer
        return replace(scene, **layers)

    return put


@pytest.fixture(params=["memory", "files", "turned"])
def kept(request, in_files):
    """A function that keeps a scene in a way: as it is, in files, or in arrays that are not C-contiguous."""

    def turned(scene):
        return replace(scene, **{name: np.asfortranarray(getattr(scene, name)) for name in LAYERS})

    return {"memory": lambda scene: scene, "files": in_files, "turned": turned}[request.param]


@pytest.fixture(scope="module")
def wide(decoded, in_files):
    """A scene of several blocks, in memory and in files."""
    rng = np.random.default_rng(1)
    scene = decoded(rng.integers(0, 3, (300, 520)).astype(np.uint8), valid=rng.random((300, 520)) > 0.2, bands=3)
    scene.part[:, 200:] = VALIDATION * scene.valid[:, 200:]
    return scene, in_files(scene)


def by_hand(scene, row_off, col_off, *, patch_px, part, halo_px=0):
    """Each pixel of a patch for itself."""
    bands = scene.pixels.shape[0]
    image = np.zeros((bands, patch_px, patch_px), scene.pixels.dtype)
    valid, label = np.zeros((patch_px, patch_px), bool), np.full((patch_px, patch_px), IGNORE_INDEX, np.int16)
    for i in range(patch_px):
        for j in range(patch_px):
            row, col = row_off + i, col_off + j
            if 0 <= row < scene.shape[0] and 0 <= col < scene.shape[1]:
                image[:, i, j] = scene.pixels[:, row, col]
                ours = scene.part[row, col] == part
                valid[i, j] = scene.valid[row, col] and (ours or part != TRAINING)
                core = halo_px <= i < patch_px - halo_px and halo_px <= j < patch_px - halo_px
                if ours and core and scene.labels[row, col] != scene.no_label:
                    label[i, j] = scene.labels[row, col]
    return image, valid, label


@settings(max_examples=60)
@given(
    st.integers(-70, 320), st.integers(-70, 540), st.sampled_from([32, 64]), st.sampled_from([TRAINING, VALIDATION]),
    st.sampled_from([0, 1, 8]),
)  # fmt: skip
def test_a_patch_is_what_its_pixels_are_one_by_one(wide, row_off, col_off, patch_px, part, halo_px):  # noqa: PLR0917
    windows = np.array([[0, row_off, col_off], [1, row_off, col_off]])
    batch = gather_patches(wide, windows, patch_px=patch_px, part=part, halo_px=halo_px)
    expected = by_hand(wide[0], row_off, col_off, patch_px=patch_px, part=part, halo_px=halo_px)
    for name, values in zip(("image", "valid", "label"), expected, strict=True):
        for found in batch[name].numpy():
            np.testing.assert_array_equal(found, values, err_msg=name, strict=True)
    assert torch.equal(batch["window"], torch.from_numpy(windows))


def test_the_batch_has_the_keys_and_dtypes_that_it_promises(decoded):
    scene = decoded(np.zeros((64, 64), np.uint8))
    batch = gather_patches([scene], np.array([[0, 0, 0]] * 3), patch_px=32, part=TRAINING)
    assert {name: (tuple(values.shape), values.dtype) for name, values in batch.items()} == {
        "image": ((3, 2, 32, 32), torch.int32), "valid": ((3, 32, 32), torch.bool),
        "label": ((3, 32, 32), torch.int16), "window": ((3, 3), torch.int64),
    }  # fmt: skip


def test_training_sees_nothing_of_the_validation_part(decoded, kept):
    scene = decoded(np.zeros((64, 64), np.uint8))
    scene.part[:, 32:] = VALIDATION
    scene.part[:, 28:32] = 0
    scene, windows = kept(scene), np.array([[0, 0, 0]])
    training = gather_patches([scene], windows, patch_px=64, part=TRAINING)
    assert training["valid"][0].sum() == 64 * 28
    assert (training["label"][0] != IGNORE_INDEX).sum() == 64 * 28
    judged = gather_patches([scene], windows, patch_px=64, part=VALIDATION)
    assert judged["valid"].all()
    assert (judged["label"][0] != IGNORE_INDEX).sum() == 64 * 32
    assert (gather_patches([scene], windows, patch_px=64, part=TEST)["label"] == IGNORE_INDEX).all()


def test_a_halo_gives_context_and_no_labels(decoded, kept):
    scene = decoded(np.zeros((64, 64), np.uint8))
    scene.part[:] = VALIDATION
    batch = gather_patches([kept(scene)], np.array([[0, 0, 0]]), patch_px=64, part=VALIDATION, halo_px=8)
    told = batch["label"][0] != IGNORE_INDEX
    assert told.sum() == 48 * 48
    assert told[8:56, 8:56].all()
    assert batch["valid"].all()


def test_scenes_of_two_dtypes_meet_in_one_that_holds_both(decoded):
    one, other = decoded(np.zeros((32, 32), np.uint8)), decoded(np.zeros((32, 32), np.uint8))
    windows = np.array([[0, 0, 0], [1, 0, 0]])
    for first, second, both in (("uint8", "uint16", torch.uint16), ("int32", "float32", torch.float32)):
        pair = replace(one, pixels=one.pixels.astype(first)), replace(other, pixels=other.pixels.astype(second))
        batch = gather_patches(pair, windows, patch_px=32, part=TRAINING)
        assert batch["image"].dtype == both
        for patch in batch["image"]:
            np.testing.assert_array_equal(patch.numpy(), one.pixels)
        # The same for a batch in which only one of them is met.
        assert gather_patches(pair, windows[:1], patch_px=32, part=TRAINING)["image"].dtype == both


def test_many_classes_have_labels_of_their_own(decoded, kept):
    scene = decoded(np.zeros((40, 40), np.uint8))
    labels = (np.arange(1600).reshape(40, 40) % 301).astype(np.uint16)
    labels[labels == 300] = 65535
    scene = kept(replace(scene, labels=labels, no_label=65535))
    batch = gather_patches([scene], np.array([[0, 4, 4]]), patch_px=32, part=TRAINING)
    cut = labels[4:36, 4:36].astype(int)
    np.testing.assert_array_equal(batch["label"][0], np.where(cut == 65535, IGNORE_INDEX, cut))


def test_absent_bands_are_said_where_the_set_has_some(decoded):
    whole, lacking = decoded(np.zeros((32, 32), np.uint8), bands=3), decoded(np.zeros((32, 32), np.uint8), bands=3)
    lacking = replace(lacking, absent=(0, 2))
    windows = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]])
    batch = gather_patches([whole, lacking], windows, patch_px=32, part=TRAINING)
    assert batch["present"].tolist() == [[True] * 3, [False, True, False], [True] * 3]
    assert "present" in gather_patches([whole, lacking], windows[:1], patch_px=32, part=TRAINING)
    assert "present" not in gather_patches([whole], windows[:1], patch_px=32, part=TRAINING)


def test_soft_labels_come_along_and_plain_ones_become_soft(decoded, kept):
    rng = np.random.default_rng(2)
    soft = np.rint(rng.dirichlet([1, 1, 1], (60, 70)) * 255).astype(np.uint8).transpose(2, 0, 1).copy()
    labels = soft.argmax(0).astype(np.uint8)
    labels[5:9] = 255
    scene, plain = decoded(labels), decoded(labels)
    scene.part[:, 40:] = VALIDATION
    scene = kept(replace(scene, soft=soft))
    windows = np.array([[0, 2, 30], [1, 2, 30], [0, 40, -8]])
    batch = gather_patches([scene, plain], windows, patch_px=32, part=TRAINING, halo_px=2)
    shares, label = batch["soft"].numpy(), batch["label"].numpy()
    assert shares.dtype == np.uint8
    told = label != IGNORE_INDEX
    assert not shares.transpose(0, 2, 3, 1)[~told].any()
    np.testing.assert_array_equal(shares[0][:, told[0]], soft[:, 2:34, 30:62][:, told[0]])
    np.testing.assert_array_equal(shares[2, :, :20, 8:][:, told[2, :20, 8:]], soft[:, 40:, :24][:, told[2, :20, 8:]])
    np.testing.assert_array_equal(shares[1], np.where(label[1] == np.arange(3)[:, None, None], 255, 0))
    assert "soft" not in gather_patches([plain], np.array([[0, 0, 0]]), patch_px=32, part=TRAINING)


def test_what_could_not_be_read_is_hidden(decoded):
    scene = decoded(np.zeros((64, 80), np.uint8))

    def copy_into(out, window):
        out[...] = scene.pixels[:, *window.slices]
        hole = Window(16, 24, 8, 8).intersect(window)
        return (hole,) if hole.rows and hole.cols else ()

    leaky = SimpleNamespace(shape=scene.pixels.shape, dtype=scene.pixels.dtype, copy_into=copy_into)
    leaky = replace(scene, pixels=leaky)
    batch = gather_patches([leaky], np.array([[0, -10, 20], [0, 40, 40]]), patch_px=64, part=VALIDATION)
    expected = np.zeros((64, 64), bool)
    expected[10:, :60] = True
    expected[26:34, 4:12] = False
    np.testing.assert_array_equal(batch["valid"][0], expected)
    assert batch["valid"][1].sum() == 24 * 40
    training = gather_patches([leaky], np.array([[0, -10, 20]]), patch_px=64, part=TRAINING)
    np.testing.assert_array_equal(training["label"][0] == 0, expected)


class Batches(Dataset):
    """Batches by the first row of their patches."""

    def __init__(self, scenes):
        self.scenes = scenes

    def __len__(self):
        return 6

    def __getitem__(self, number):
        return gather_patches(self.scenes, np.array([[0, number * 10, 3]] * 2), patch_px=64, part=TRAINING)


@pytest.mark.parametrize("where", [0, 1])
def test_workers_cut_the_same_patches_into_shared_memory(wide, where):
    batches = Batches([wide[where]])
    found = list(DataLoader(batches, batch_size=None, num_workers=2))
    for number, batch in enumerate(found):
        for name, values in batches[number].items():
            assert torch.equal(batch[name], values)
        assert batch["image"].is_shared()

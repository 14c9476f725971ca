"""Joined arcs against tracing: of merged maps, and of arcs cut anywhere, turned round and shuffled."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoseg.vector.coverage import Arcs, end_headings, trace_arcs
from geoseg.vector.dissolve import dissolve, join_arcs
from geoseg.vector.regions import label_regions

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def assert_same(found, expected):
    for name, ours, theirs in zip(Arcs._fields, found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype or name in ("junction_count", "scale")


def corners_along(coords):
    """Every pixel corner on the way, and the index of each vertex among them."""
    steps = np.diff(coords, axis=0)
    sizes = np.abs(steps).sum(1)
    out = [coords[:1]]
    for start, step, size in zip(coords, steps, sizes, strict=False):
        out.append(start + np.sign(step) * np.arange(1, size + 1)[:, None])
    return np.concatenate(out), np.concatenate([[0], np.cumsum(sizes)])


def cut(arcs, rng, share):
    """The arcs in pieces between random corners, some of them turned round, in random order."""
    pieces = []
    for k in range(len(arcs.left)):
        corners, turns = corners_along(arcs.coords[arcs.offsets[k] : arcs.offsets[k + 1]])
        inner = np.arange(1, len(corners) - 1)
        cuts = inner[rng.random(len(inner)) < share]
        bounds = [0, *cuts.tolist(), len(corners) - 1]
        closed = arcs.junctions[k, 0] < 0
        if closed and len(cuts):  # it may begin anywhere, and at a corner that is no vertex
            corners = np.concatenate([corners[cuts[0] :], corners[1 : cuts[0] + 1]])
            turns = (turns - cuts[0]) % (len(corners) - 1)
            bounds = [0, *(cuts[1:] - cuts[0]).tolist(), len(corners) - 1]
            if rng.random() < 0.5:
                bounds = [0, len(corners) - 1]
        for a, b in pairwise(bounds):
            kept = sorted({a, b, *(t for t in turns.tolist() if a < t < b)})
            sides = (arcs.left[k], arcs.right[k])
            alone = closed and len(bounds) == 2 and rng.random() < 0.5
            if rng.random() < 0.5:
                pieces.append((corners[kept][::-1], sides[::-1], alone))
            else:
                pieces.append((corners[kept], sides, alone))
    return assemble([pieces[k] for k in rng.permutation(len(pieces))], rng)


def assemble(pieces, rng):
    """Arcs of pieces (vertices, sides, whether it is closed and ends at no junction); junctions in random order."""
    ends = {tuple(xy) for coords, _, alone in pieces if not alone for xy in coords[[0, -1]].tolist()}
    number = dict(zip(sorted(ends), rng.permutation(len(ends)).tolist(), strict=True))
    offsets = np.cumsum([0, *(len(coords) for coords, _, _ in pieces)])
    coords = np.concatenate([np.empty((0, 2), int), *(coords for coords, _, _ in pieces)]).astype(np.int32)
    sides = np.array([sides for _, sides, _ in pieces], np.int32).reshape(-1, 2)
    junctions = [
        [-1, -1] if alone else [number[tuple(xy)] for xy in coords[[0, -1]].tolist()] for coords, _, alone in pieces
    ]
    return Arcs(
        coords, offsets, sides[:, 0].copy(), sides[:, 1].copy(), np.array(junctions, np.int32).reshape(-1, 2),
        end_headings(coords, offsets), len(ends),
    )  # fmt: skip


@settings(max_examples=400)
@given(MAPS, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_pieces_of_any_cut_are_joined_as_if_traced_whole(classes, seed, share):
    regions, _ = label_regions(classes, classes > 0)
    arcs = trace_arcs(regions)
    assert_same(join_arcs(cut(arcs, np.random.default_rng(seed), share)), arcs)


@settings(max_examples=400)
@given(MAPS, st.data())
def test_dissolved_arcs_are_those_of_the_merged_map(classes, data):
    regions, class_of_region = label_regions(classes, classes > 0)
    size = len(class_of_region)
    lut = np.array([0, *data.draw(st.lists(st.integers(0, 4), min_size=size - 1, max_size=size - 1))], np.int32)
    assert_same(dissolve(trace_arcs(regions), lut), trace_arcs(lut[regions]))


@pytest.mark.parametrize("seed", range(3))
def test_a_patchy_map_in_pieces(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (12, 15)).repeat(8, 0).repeat(8, 1)
    classes = np.where(rng.random(coarse.shape) < 0.15, rng.integers(0, 4, coarse.shape), coarse)
    regions, class_of_region = label_regions(classes, classes > 0)
    arcs = trace_arcs(regions)
    pieces = cut(arcs, rng, 0.3)
    assert_same(join_arcs(pieces), arcs)
    lut = np.append(0, rng.integers(0, 5, len(class_of_region) - 1)).astype(np.int32)
    assert_same(dissolve(pieces, lut), trace_arcs(lut[regions]))


def test_no_pieces_are_no_arcs():
    arcs = trace_arcs(np.zeros((2, 3), np.int32))
    assert_same(join_arcs(arcs), arcs)

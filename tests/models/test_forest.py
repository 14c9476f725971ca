"""A forest as a network: sklearn's own votes, scipy's own windows, and nothing but plain arrays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier

from geoseg.errors import InputError
from geoseg.models.networks.forest import Forest, ForestOptions, Trees, features
from geoseg.models.spec import ModelSpec

OPTIONS = {"trees": 7, "windows": [3, 5], "pairs": [[1, 0]], "mean": [100.0, 200.0], "std": [10.0, 20.0]}


def spec(**options) -> ModelSpec:
    return ModelSpec(decoder="random_forest", encoder="none", bands=2, classes=4, options={**OPTIONS, **options})


def grown(image: torch.Tensor, labels: np.ndarray):
    """A forest of sklearn on the features of an image, and the same as a network."""
    options = ForestOptions.of(spec())
    table = features(image, options).movedim(1, -1).flatten(0, 2).numpy()
    sklearns = RandomForestClassifier(7, random_state=0, min_samples_leaf=2).fit(table, labels.ravel())
    trees = Trees.of_sklearn(sklearns, classes=4)
    full = spec(nodes=len(trees.feature), leaves=len(trees.shares))
    return sklearns, table, Forest.grown(full, trees), full


@pytest.fixture(scope="module")
def forest():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 2, 40, 50, generator=generator)
    labels = np.array([0, 1, 3])[(image[0, 0] > 0).int().numpy() + (image[0, 1] > 0.5).int().numpy()]
    return image, *grown(image, labels)


def test_votes_are_sklearns(forest):
    image, sklearns, table, network, _ = forest
    shares = network(image).softmax(1)[0].flatten(1).T.numpy()
    expected = np.zeros((len(table), 4))
    expected[:, [0, 1, 3]] = sklearns.predict_proba(table)
    np.testing.assert_allclose(
        shares, np.maximum(expected, 1e-4) / np.maximum(expected, 1e-4).sum(1)[:, None], atol=1e-5
    )
    assert (shares.argmax(1) == sklearns.predict(table)).mean() > 0.999


def test_a_saved_forest_is_the_same_forest(forest):
    image, _, _, network, full = forest
    again = Forest(full)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(image), network(image))
    assert not list(network.parameters())


def test_windows_are_scipys_away_from_the_edge():
    image = torch.randn(1, 2, 30, 30, generator=torch.Generator().manual_seed(1))
    seen = features(image, ForestOptions.of(spec(windows=[5])))[0].numpy()
    raw = image[0].numpy() * np.array([10, 20])[:, None, None] + np.array([100, 200])[:, None, None]
    ratio = (raw[1] - raw[0]) / (raw[1] + raw[0])
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(seen[2], ratio, rtol=1e-4, atol=1e-6)
    for k, plane in enumerate([*image[0].numpy(), ratio]):
        np.testing.assert_allclose(seen[3 + k][inner], uniform_filter(plane, 5)[inner], atol=1e-5)
    spread = np.sqrt(uniform_filter(ratio**2, 5) - uniform_filter(ratio, 5) ** 2)
    np.testing.assert_allclose(seen[6][inner], spread[inner], atol=1e-4)


def test_bands_without_names_have_no_pairs_but_windows():
    image = torch.rand(1, 3, 20, 20)
    seen = features(image, ForestOptions(windows=(5,)))
    assert seen.shape == (1, 6, 20, 20)
    torch.testing.assert_close(seen[0, 3:, 7, 9], image[0, :, 5:10, 7:12].mean((1, 2)))


def test_a_forest_without_trees_knows_nothing():
    logits = Forest(spec())(torch.zeros(1, 2, 8, 9))
    torch.testing.assert_close(logits.softmax(1), torch.full((1, 4, 8, 9), 0.25))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 3}, "no option depth; it has trees"),
        ({"windows": [4]}, "odd numbers"),
        ({"trees": 0}, "trees is 0"),
        ({"pairs": [[0, 2]]}, "bands 0 to 1"),
        ({"pairs": [[0]]}, "two positions"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Forest(replace(spec(), options={**OPTIONS, **options}))


def test_votes_are_sklearns_where_values_lie_on_thresholds():
    """Grey levels with gaps: a threshold half-way across one is often next to a value, and rounds to it."""
    rng = np.random.default_rng(0)
    table = (((rng.integers(5000, 5300, (4000, 2))) - 5100.3) / 77.7).astype(np.float32)
    labels = rng.integers(0, 4, 4000)
    sklearns = RandomForestClassifier(20, random_state=0).fit(table, labels)
    trees = Trees.of_sklearn(sklearns, classes=4)
    plain = {"windows": [], "pairs": [], "mean": [0.0, 0.0], "std": [1.0, 1.0], "trees": 20}
    network = Forest.grown(spec(**plain, nodes=len(trees.feature), leaves=len(trees.shares)), trees)
    image = torch.from_numpy(table.T.reshape(1, 2, 40, 100).copy())
    shares = network(image).softmax(1)[0].flatten(1).T.numpy()
    expected = np.maximum(sklearns.predict_proba(table), 1e-4)
    np.testing.assert_allclose(shares, expected / expected.sum(1)[:, None], atol=1e-5)


@pytest.mark.parametrize(
    "damage",
    [
        {"left": 2**31 - 1}, {"left": 0}, {"right": 0}, {"right": 10**6}, {"feature": 99}, {"feature": -2},
        {"threshold": np.nan}, {"roots": -1}, {"roots": 10**6},
    ],
)  # fmt: skip
def test_trees_that_lead_nowhere_are_refused(forest, damage):
    _, _, _, network, full = forest
    twin = Forest(full)
    twin.load_state_dict(network.state_dict())
    twin.check()
    ((name, value),) = damage.items()
    getattr(twin, name)[0] = value
    with pytest.raises(InputError, match="its trees lead nowhere"):
        twin.check()


def test_trees_that_look_at_a_feature_that_is_none_are_refused_without_moments_too():
    network = Forest(spec(pairs=[], mean=[], std=[]))
    network.check()
    network.feature[0], network.left[0] = 6, 0  # of two bands and two windows there are 0 to 5
    with pytest.raises(InputError, match="its trees lead nowhere"):
        network.check()

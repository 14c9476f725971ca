"""What a run remembers, and its picture."""

from types import SimpleNamespace

import torch
from PIL import Image

from geoseg.models.history import History, Ticks, draw_curves


def trained(history: History, epoch: int, losses: list[float], *, accumulate: int = 1) -> None:
    trainer = SimpleNamespace(
        current_epoch=epoch, global_step=10 * (epoch + 1), accumulate_grad_batches=accumulate,
        strategy=SimpleNamespace(reduce=lambda value, **_: value), is_global_zero=True, max_epochs=9,
        callback_metrics={"val/score": torch.tensor(0.5 + epoch / 10), "train/loss": torch.tensor(9.0)},
    )  # fmt: skip
    for loss in losses:
        history.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, 0)
    history.on_validation_end(trainer, None)


def test_a_row_an_epoch_with_the_mean_loss():
    history = History()
    trained(history, 0, [1.0, 3.0])
    trained(history, 1, [1.0])
    assert [row["train/loss"] for row in history.rows] == [2.0, 1.0]
    assert [row["step"] for row in history.rows] == [10, 20]
    assert set(history.rows[0]) == {"epoch", "step", "seconds", "train/loss", "val/score"}


def test_the_loss_is_that_of_a_batch_where_several_make_a_step():
    history = History()
    trained(history, 0, [0.25, 0.75], accumulate=4)  # Lightning has divided them
    assert history.rows[0]["train/loss"] == 2.0


def test_a_validation_without_training_adds_nothing():
    history = History()
    trained(history, 0, [])
    assert history.rows == []


def test_a_checkpoint_brings_rows_and_seconds_back():
    history, resumed = History(), History()
    trained(history, 0, [1.0])
    state = history.state_dict()
    resumed.load_state_dict({**state, "seconds": 100.0})
    trained(resumed, 1, [0.5])
    assert [row["epoch"] for row in resumed.rows] == [0, 1]
    assert resumed.seconds >= 100


def test_a_checkpoint_between_validations_brings_the_losses_since_the_last_one_back():
    history, resumed = History(), History()
    trainer = SimpleNamespace(accumulate_grad_batches=1)
    for loss in (1.0, 2.0):
        history.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, 0)
    resumed.load_state_dict(history.state_dict())
    trained(resumed, 1, [6.0])
    assert resumed.rows[0]["train/loss"] == 3.0
    resumed.load_state_dict({"rows": [], "seconds": 1.0})  # as runs before kept it
    trained(resumed, 1, [6.0])
    assert resumed.rows[0]["train/loss"] == 6.0


def test_the_losses_of_an_epoch_without_validation_are_kept_as_means_of_all_processes():
    """One process writes the checkpoint; the other one has losses that are higher by 2."""
    history, resumed = History(), History()
    trainer = SimpleNamespace(accumulate_grad_batches=1, strategy=SimpleNamespace(reduce=lambda value, **_: value + 1))
    history.on_train_epoch_end(trainer, None)  # was validated: nothing to share
    for loss in (1.0, 2.0):
        history.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, 0)
    history.on_train_epoch_end(trainer, None)
    assert history.state_dict()["losses"] == [2.0, 3.0]
    resumed.load_state_dict(history.state_dict())
    trained(resumed, 1, [7.0])
    assert resumed.rows[0]["train/loss"] == 4.0


def test_ticks_tell_the_steps():
    seen = []
    ticks = Ticks()
    trainer = SimpleNamespace(estimated_stepping_batches=40, global_step=3)
    ticks.on_train_batch_end(trainer)
    ticks.tick = lambda done, total: seen.append((done, total))
    ticks.on_train_batch_end(trainer)
    ticks.on_train_batch_end(SimpleNamespace(estimated_stepping_batches=float("inf"), global_step=4))
    assert seen == [(3, 40)]


def test_curves_are_a_small_picture(tmp_path):
    rows = [{"epoch": k, "train/loss": 1 / (k + 1), "val/oa": 0.5 + k / 10, "val/miou": 0.3} for k in range(4)]
    draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (880, 330)
        assert len(picture.convert("RGB").getcolors(10**6)) > 20

from model.training.checkpointing.best_model import format_tag, list_checkpoints
from model.training.checkpointing.checkpoints import StageState


def test_progress_holds_the_metrics_of_the_best_evaluation():
    history = [{"step": step, "loss": loss, "accuracy": 1 - loss} for step, loss in ((4, 0.5), (8, 0.2), (12, 0.4))]
    state = StageState(step=13, best=0.8, best_step=8, seconds=2.5, history=history)
    progress = state.progress
    assert progress.best_values == {"loss": 0.2, "accuracy": 0.8}
    assert (progress.step, progress.best, progress.best_step, progress.seconds) == (13, 0.8, 8, 2.5)
    assert not progress.ended
    assert StageState(step=3).progress.best_values == {}


def test_checkpoints_are_listed_last_step_first(tmp_path):
    for step in (5, 100, 20):
        (tmp_path / format_tag(step)).mkdir()
    for other in (".step-000000200.partial", "universal"):
        (tmp_path / other).mkdir()
    (tmp_path / "latest").write_text(format_tag(100))
    assert [path.name for path in list_checkpoints(tmp_path)] == [format_tag(100), format_tag(20), format_tag(5)]

"""A run's numbers arrive in the store of the tracker that `--tracker` names, read back by that tracker's own means and without a network."""
import struct
from dataclasses import replace
import pytest
from causal_tune.training.checkpoint import read_log
from causal_tune.training.loop import train
from causal_tune.training.recipe import get_recipe


@pytest.fixture
def recipe(weights):
    return get_recipe("demo", weights=str(weights), head="linear", crop=(32, 48), batch_size=2, precision="no", iterations=4,
                      train="toyscapes:domain=clear,split=train,n=2", targets=())


def test_tensorboard(recipe, tmp_path):
    "Stopped and resumed: each iteration once, and the recipe's fields as text and numbers."
    EventAccumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    train(recipe, tmp_path, stop=2)
    train(recipe, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    kept = read_log(tmp_path)
    losses = events.Scalars("loss")
    assert [e.step for e in losses] == [0, 1, 2, 3] and [e.value for e in losses] == pytest.approx(kept.loss.tolist(), rel=1e-4)
    configuration = next((tmp_path / "tensorboard").glob("*/hparams.yml")).read_text()
    assert "crop: (32, 48)" in configuration or "crop: '[32, 48]'" in configuration
    assert "batch_size: 2" in configuration and len(list((tmp_path / "tensorboard").glob("*/hparams.yml"))) == 1


def wandb_records(content): # of a LevelDB log after a header of seven bytes: blocks of 32 KiB, records whole (1) or in parts up to the last (4)
    at, part = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        part += content[at + 7:at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield part
            part = b""


def test_wandb_offline(recipe, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(replace(recipe, tracker="wandb"), tmp_path)
    stored, = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    losses, config = [], {}
    for content in wandb_records(stored.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        losses += [float(item.value_json) for item in record.history.item if "loss" in (item.key, *item.nested_key)]
        config |= {item.key: item.value_json for item in record.config.update}
    assert losses == pytest.approx(read_log(tmp_path).loss.tolist(), rel=1e-4)
    assert config["crop"] == '"[32, 48]"' and config["batch_size"] == "2"


def test_none_and_missing(recipe, tmp_path, monkeypatch):
    train(replace(recipe, tracker="none"), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists() and len(read_log(tmp_path / "run")) == 4
    import accelerate.tracking
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match="tracker=wandb: this package is not installed here"): train(replace(recipe, tracker="wandb"), tmp_path / "other")
    with pytest.raises(ValueError, match="(?i)unsupported"): train(replace(recipe, tracker="wandbb"), tmp_path / "other")
    assert not (tmp_path / "other" / "log.csv").exists()

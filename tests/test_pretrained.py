"""Models that are passed on: a folder, and what huggingface_hub's mixin makes of it, without a network."""
import json
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
from huggingface_hub import hub_mixin
import causal_tune as ct
from causal_tune.models import segmentor as module

IMAGE = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory):
    recipe = ct.get_recipe("demo", iterations=1, batch_size=1, crop=(32, 48), head="linear", weights=str(weights), precision="no")
    data = [(IMAGE, np.arange(48)[None].repeat(32, 0) // 24)]
    return ct.train(recipe, tmp_path_factory.mktemp("run"), data=data, classes=["left", "right"])


def test_pushed_and_fetched(model, tmp_path, monkeypatch):
    "`push_to_hub` uploads the files of `save_pretrained`, and the downloaded model gives the same outputs."
    pushed = {}
    class Api:
        def __init__(self, **_): pass
        def create_repo(self, repo_id, **_): return SimpleNamespace(repo_id=repo_id)
        def upload_folder(self, *, repo_id, folder_path, **_):
            for path in folder_path.iterdir(): pushed[path.name] = path.read_bytes()
            return f"hub/{repo_id}"
    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    assert model.push_to_hub("me/streets", model_card_kwargs=dict(licence="MIT", backbone=True)) == "hub/me/streets"
    assert set(pushed) == set(module.FOLDER_FILES) and b'license: "MIT"' in pushed["README.md"]
    for name, content in pushed.items(): (tmp_path / name).write_bytes(content)
    asked = []
    def snapshot(name, **options): return asked.append((name, options.get("revision"))) or str(tmp_path)
    monkeypatch.setattr(module, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    answer = model.predict(IMAGE, scores=True)
    for found in (ct.Segmentor.from_pretrained("me/streets"), ct.Segmentor.from_pretrained("me/streets", revision="v1")):
        assert np.array_equal(found.predict(IMAGE, scores=True), answer)
    assert asked == [("me/streets", None), ("me/streets", "v1")]


def test_without_a_network(tmp_path, monkeypatch):
    def snapshot(*_, **__): raise ConnectionError("no route\nto host")
    monkeypatch.setattr(module, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No folder me/streets here, nor can .* \(ConnectionError\)"): ct.Segmentor.from_pretrained("me/streets")
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="No folder runs/mine: give one"): ct.Segmentor.from_pretrained("runs/mine")  # asks nobody


def test_a_folder_of_version_0_1(model, tmp_path):
    "Its configuration has a recipe, and neither an architecture nor a checksum."
    model.save_pretrained(tmp_path, backbone=True)
    config = json.loads((tmp_path / "config.json").read_text())
    old = dict(format="causal_tune", version="0.1.0", recipe=config["recipe"], space=config["space"], whole=True)
    (tmp_path / "config.json").write_text(json.dumps(old))
    found = ct.Segmentor.from_pretrained(tmp_path)
    assert np.array_equal(found.predict(IMAGE, scores=True), model.predict(IMAGE, scores=True))
    assert found.recipe == replace(model.recipe, weights="toy_vit.safetensors") and found.space == model.space
    assert "trained on" in (tmp_path / "README.md").read_text()


def test_names_of_the_package():
    assert {"linear", "dpt", "mask2former"} <= set(ct.list_heads()) and "demo" in ct.list_recipes()
    assert {"toyscapes", "camvid", "folder"} <= set(ct.list_datasets())

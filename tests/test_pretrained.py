"""Models that are passed on: a folder, and what huggingface_hub's mixin makes of it, without a network."""
from types import SimpleNamespace
import numpy as np
import pytest
from huggingface_hub import hub_mixin
import causal_tune as ct
from causal_tune.published import checkpoints

IMAGE = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory):
    recipe = ct.get_recipe("demo", iterations=1, batch_size=1, crop=(32, 48), head="linear", weights=str(weights), precision="no")
    data = [(IMAGE, np.arange(48)[None].repeat(32, 0) // 24)]
    return ct.train(recipe, tmp_path_factory.mktemp("run"), data=data, classes=["left", "right"])


def test_pushed_and_fetched(model, tmp_path, monkeypatch):
    "What is pushed is what `save_pretrained` writes, and what is fetched answers as the model did."
    pushed = {}
    class Api:
        def __init__(self, **_): pass
        def create_repo(self, repo_id, **_): return SimpleNamespace(repo_id=repo_id)
        def upload_folder(self, *, repo_id, folder_path, **_):
            for path in folder_path.iterdir(): pushed[path.name] = path.read_bytes()
            return f"hub/{repo_id}"
    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    assert ct.HubSegmentor(model, licence="MIT", backbone=True).push_to_hub("me/streets") == "hub/me/streets"
    assert set(pushed) == set(checkpoints.FOLDER_FILES) and b'license: "MIT"' in pushed["README.md"]
    for name, content in pushed.items(): (tmp_path / name).write_bytes(content)
    asked = []
    def snapshot(name, **options): return asked.append((name, options.get("revision"))) or str(tmp_path)
    monkeypatch.setattr(checkpoints, "snapshot_download", snapshot)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", lambda **_: str(tmp_path / "config.json"))
    monkeypatch.chdir(tmp_path)
    answer = model.predict(IMAGE, scores=True)
    for found in (ct.Segmentor.from_pretrained("me/streets"), ct.HubSegmentor.from_pretrained("me/streets", revision="v1").segmentor):
        assert np.array_equal(found.predict(IMAGE, scores=True), answer)
    assert asked == [("me/streets", None), ("me/streets", "v1")]


def test_without_a_network(tmp_path, monkeypatch):
    def snapshot(*_, **__): raise ConnectionError("no route\nto host")
    monkeypatch.setattr(checkpoints, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No folder me/streets here, nor can .* \(ConnectionError\)"): ct.Segmentor.from_pretrained("me/streets")
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="No folder runs/mine: give one"): ct.Segmentor.from_pretrained("runs/mine")  # asks nobody


def test_names_of_the_package():
    assert {"linear", "dpt", "mask2former"} <= set(ct.list_heads()) and "demo" in ct.list_recipes()
    assert {"toyscapes", "camvid", "folder"} <= set(ct.list_datasets()) and hasattr(ct.create_segmentor(pretrained=False), "save_pretrained")

"""The recipe's field `style` beyond the chapter: older recipes, the command line, and interrupted runs."""
import json
from dataclasses import replace
import pytest
import torch
from conftest import trained
from causal_tune.cli import main
from causal_tune.cli.entry import parse
from causal_tune.training.recipe import Recipe, recipe_from_dict, get_recipe, nonempty_fields, recipe_to_dict
from causal_tune.training.build import training_data
from causal_tune.training.loop import train
from causal_tune.training.stream import Stream


@pytest.fixture
def recipe(weights):
    "Two steps on images of which every one is changed."
    return get_recipe("demo", weights=str(weights), crop=(32, 48), batch_size=2, precision="no", iterations=2,
                      train="toyscapes:domain=clear,split=train,n=4", style="spurious:p=1")


def images(recipe):
    "The first images that a run sees."
    stream = Stream(training_data(recipe), 4, recipe.seed)
    return torch.stack([stream[i]["image"] for i in range(4)])


def test_field_goes_to_text_and_back():
    "A recipe of before, without the field, is read too."
    before = recipe_to_dict(Recipe(seed=3))
    del before["style"]
    assert recipe_from_dict(before) == Recipe(seed=3) and Recipe().style is None
    assert "style" not in nonempty_fields(Recipe())
    r = get_recipe("toyscapes", **parse(["train", "demo", "--style", "amplitude:beta=.1,p=1"]).changes)
    assert r.style == "amplitude:beta=.1,p=1" == nonempty_fields(r)["style"]
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(r)))) == r


def test_style_changes_the_images_and_nothing_else(recipe):
    "The draws of crops and mirroring come first, so a style moves none of them; none, as a name or empty, is no style."
    plain = images(replace(recipe, style=None, color=False))
    typed = [parse(["train", "demo", word]).changes["style"] for word in ("--style=none", "--style=")]
    for off in ("none", "", *typed):
        assert torch.equal(images(replace(recipe, style=off, color=False)), plain)
    assert torch.equal(images(replace(recipe, style="spurious:p=0", color=False)), plain)
    styled = images(replace(recipe, color=False))
    assert not torch.equal(styled, plain) and torch.equal(images(replace(recipe, color=False)), styled)
    labels = [Stream(training_data(r), 1, r.seed)[0]["label"] for r in (recipe, replace(recipe, style=None))]
    assert torch.equal(*labels)


def test_unknown_style_is_one_line_before_any_step(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("causal_tune.training.loop.train_step", lambda *_: pytest.fail("a step was taken"))
    for spec, expected in (("spuriuos", "Did you mean 'spurious'?"), ("amplitude:beat=1", "'beta'"), ("spurious:p=2", "p=2: give one from 0.0 to 1.0")):
        assert main(["train", "demo", "--weights", str(weights), "--style", spec, "--out", "run"]) == 2
        said = capsys.readouterr().err
        assert expected in said and said.count("\n") == 1
    assert not list((tmp_path / "run").glob("*.pt"))


def test_resume_with_a_style_is_exact(recipe, tmp_path):
    whole, pieces, plain = (tmp_path / name for name in ("whole", "pieces", "plain"))
    train(recipe, whole)
    train(recipe, pieces, stop=1)
    assert not (pieces / "checkpoint.pt").exists()
    with pytest.raises(ValueError, match="style"): train(replace(recipe, style="amplitude"), pieces)
    torch.manual_seed(99)  # what the process drew before must not matter
    train(recipe, pieces)
    train(replace(recipe, style=None), plain)
    a, b, c = (trained(f / "checkpoint.pt") for f in (whole, pieces, plain))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a), "the style had no effect on training"

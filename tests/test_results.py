"""Every figure of the README is that of a table in nbs/experiments/results, rounded as it stands there."""
import re
import pandas as pd
from conftest import ROOT

RESULTS = ROOT / "nbs" / "experiments" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[+−]?(?:\d+\.\d+|\d+)(?!-S)(?<!DINOv2)")
HELD_OUT = ("night", "snow")


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv", comment="#")


def section(title: str) -> str:
    "Text under a heading, without code, links' targets and pictures."
    text = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    for pattern in (r"```.*?```", r"!\[.*?\]\(.*?\)", r"\]\(.*?\)", r"`[^`]*`"): text = re.sub(pattern, "", text, flags=re.S)
    return text


def signed(value: float, digits: int = 1) -> str:
    "+0.6, −0.6, 0.0: a value that rounds to zero has no sign."
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text.lstrip("+−") if float(f"{value:.{digits}f}") == 0 else text


def difference(name: str, adapter: str, domain: str, digits: int = 1, interval: bool = True) -> list[str]:
    "A difference to `none`, and the bounds of its interval."
    t = table(name)
    row = t[(t.adapter == adapter) & (t.domain == domain)]
    if "reference" in t: row = row[row.reference == "none"]
    assert len(row) == 1, f"{len(row)} rows for {adapter} at {domain} in {name}"
    fields = ("difference", "low", "high") if interval else ("difference",)
    return [signed(row[field].item(), digits) for field in fields]


def mean(name: str, domain: str) -> str:
    t = table(name)
    return f"{t[(t.adapter == 'none') & (t.domain == domain)]['mean'].item():.1f}"


def holm(name: str, adapter: str, domain: str) -> float:
    t = table(name)
    if "reference" in t: t = t[t.reference == "none"]
    return t[(t.adapter == adapter) & (t.domain == domain)].holm.item()


def claim(model: str, domain: str) -> pd.Series:
    "Share of a gap that the paper's band carries, for heads without an adapter."
    t = table("band_patching_claim").query("adapter == 'none' and model == @model and domain == @domain")
    return t.iloc[0]


def share(model: str, domain: str) -> list[str]:
    row = claim(model, domain)
    return [f"{100 * row[key]:.0f}".replace("-", "−") for key in ("share", "share_low", "share_high")]


def carried(model: str, domain: str, band: str) -> str:
    t = table("band_patching").query("adapter == 'none' and score == 'miou' and model == @model and domain == @domain and band == @band")
    return f"{t.points.item():.1f}"


def test_the_table_of_the_demo():
    rows = table("demo")
    targets = rows[rows.domain != "clear"].groupby(["adapter", "seed"]).miou.mean().reset_index().assign(domain="mean")
    scores = pd.concat([rows, targets]).groupby(["adapter", "domain"]).miou.agg(["mean", "std"]) * 100
    domains = ["clear", "fog", "night", "rain", "snow", "mean"]
    names = ["mean of targets" if d == "mean" else f"{d} ({'held out' if d in HELD_OUT else 'seen'})" for d in domains]
    lines = ["| adapter | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for adapter in ("none", "rein", "causal_tune"):
        cells = [f"{scores['mean'][adapter, d]:.1f} ± {scores['std'][adapter, d]:.1f}" for d in domains]
        lines.append(f"| {adapter} | " + " | ".join(cells) + " |")
    assert "\n".join(lines) in README


def test_every_figure_of_the_results():
    camvid, search, twins = "quality_camvid_differences", "filter_search_differences", "filter_search_twins"
    dinov2, before = "quality_camvid_dinov2_differences", "before: equation, fine levels"
    expected = [
        *(mean("quality_camvid_means", d) for d in ("day", "dusk", "corruptions")), "15",
        *(figure for d in ("day", "dusk", "corruptions") for figure in difference(camvid, "causal_tune zero", d)),
        "95",
        *(figure for d in ("day", "dusk", "corruptions") for figure in difference(camvid, "rein zero", d, interval=False)),
        "19", *difference(search, before, "ten corruptions"), f"{holm(search, before, 'ten corruptions'):.2f}",
        *difference(twins, before, "ten corruptions"), f"{holm(twins, before, 'ten corruptions'):.3f}",
        *(figure for d in ("day", "dusk", "corruptions") for figure in difference(dinov2, "causal_tune zero", d)),
        *difference(dinov2, "flat filter zero", "dusk", interval=False), *difference(dinov2, "shuffled filter zero", "dusk", interval=False),
        "0.2", "0.7",
        *share("dinov2_s_focus", "fog:3"), f"{claim('dinov2_s_focus', 'fog:3').gap:.1f}",
        *share("dinov2_s_focus", "contrast:3"), f"{claim('dinov2_s_focus', 'contrast:3').gap:.1f}",
        *(f"{100 * claim('dinov2_s_focus', d).energy:.0f}" for d in ("fog:3", "contrast:3")), "0.1", "0.2",
        carried("dinov2_s_focus", "fog:3", "0.1–0.2"), "0.7", carried("dinov2_s_focus", "fog:3", "0.7–1.41"),
        *(share("toy_vit", d)[0] for d in ("fog", "snow")),
        *(f"{table('band_patching_correlations').set_index('predictor').loc['removal', k]:.2f}" for k in ("correlation", "low", "high")),
    ]
    assert NUMBER.findall(section("Results")) == expected


def test_no_gain_survives_the_correction_in_the_main_experiments():
    controls = ("random backbone", "trained on target", "amplitude style")
    for name in ("quality_camvid_differences", "quality_toyscapes_differences", "quality_camvid_dinov2_differences"):
        t = table(name)
        better = t[(t.reference == "none") & (t.difference > 0) & (t.holm < .05) & ~t.adapter.isin(controls)]
        assert better.empty, better


def test_what_the_readme_says_of_the_claim_and_of_the_probes():
    t = table("band_patching_claim").query("adapter == 'none'").set_index(["model", "domain"]).claim
    assert t["toy_vit"][["fog", "snow"]].eq("contradicted").all()
    assert t["dinov2_s_focus"][["fog:3", "contrast:3"]].tolist() == ["open", "holds"]
    rows = table("band_patching").query("model == 'dinov2_s_focus' and adapter == 'none' and score == 'miou' and domain == 'fog:3'").set_index("band").points
    assert rows.drop(["all", "0.2–0.7"]).idxmax() == "0.1–0.2"
    predictors = table("band_patching_correlations").set_index("predictor")
    assert predictors.correlation.idxmax() == "removal" and (predictors.loc[["energy", "energy_share"], ["low", "high"]].prod(axis=1) < 0).all()

    t = table("band_evidence_dinov2").pivot(index="band", columns="what", values="relative")[["class, other domains", "domain"]]
    assert (t.idxmax() <= 1).all()
    assert t["class, other domains"].idxmin() == 8

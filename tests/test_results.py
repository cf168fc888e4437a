"""Every figure of the README is that of a table in nbs/experiments/results, rounded as it stands there."""
import re
import pandas as pd
from conftest import ROOT

RESULTS = ROOT / "nbs" / "experiments" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[+−]?(?:\d+\.\d+|\d+)")
HELD_OUT = ("night", "snow")


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv", comment="#")


def section(title: str) -> str:
    "Text under a heading, without code, links' targets and pictures."
    text = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    for pattern in (r"```.*?```", r"!\[.*?\]\(.*?\)", r"\]\(.*?\)", r"`[^`]*`"): text = re.sub(pattern, "", text, flags=re.S)
    return text


def signed(value: float, digits: int = 1) -> str:
    "+0.6, −0.6, 0.0: what rounds to nothing has no sign."
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


def relative(what: str, band: int) -> str:
    "Share of an oracle's skill in one band of lite0's features at stride 16."
    t = table("band_evidence_relative")
    return f"{100 * t[(t.run == 'lite0, stride 16') & (t.what == what) & (t.band == band)].relative.item():.0f}"


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
    camvid, toy, search, twins = "quality_camvid_differences", "quality_toyscapes_differences", "filter_search_differences", "filter_search_twins"
    before = "before: equation, fine levels"
    expected = [
        *(mean("quality_camvid_means", d) for d in ("day", "dusk", "corruptions")), "15",
        *(figure for d in ("day", "dusk", "corruptions") for figure in difference(camvid, "causal_tune zero", d)),
        "95",
        *(figure for d in ("day", "dusk", "corruptions") for figure in difference(camvid, "rein zero", d, interval=False)),
        *difference("quality_camvid_swapped_differences", "causal_tune zero", "day", 2), f"{holm('quality_camvid_swapped_differences', 'causal_tune zero', 'day'):.3f}",
        *difference("quality_camvid_short_differences", "causal_tune zero", "day", 2), f"{holm('quality_camvid_short_differences', 'causal_tune zero', 'day'):.3f}",
        *difference(camvid, "causal_tune zero fast", "day", interval=False), *difference(camvid, "rein zero fast", "day", interval=False),
        *difference(camvid, "flat filter zero fast", "day", interval=False),
        mean("quality_toyscapes_means", "weathers"), *difference(toy, "causal_tune zero", "weathers", 2),
        *difference(toy, "rein", "weathers", 2), *difference(toy, "rein zero", "weathers", 2),
        "19", *difference(search, before, "ten corruptions"), f"{holm(search, before, 'ten corruptions'):.2f}",
        *difference(twins, before, "ten corruptions"), f"{holm(twins, before, 'ten corruptions'):.3f}",
        "16", relative("class, other domains", 1), "0.2", *(relative("class, other domains", band) for band in (5, 6, 8)), "0.55", "0.7", "0.7", "1",
        *(relative("domain", band) for band in (1, 5, 6, 8)),
    ]
    assert NUMBER.findall(section("Results")) == expected


def test_no_gain_survives_the_correction_in_the_two_main_experiments():
    controls = ("random backbone", "trained on target", "amplitude style")
    for name in ("quality_camvid_differences", "quality_toyscapes_differences"):
        t = table(name)
        better = t[(t.reference == "none") & (t.difference > 0) & (t.holm < .05) & ~t.adapter.isin(controls)]
        assert better.empty, better

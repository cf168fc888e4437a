"""The arithmetic of the lab's script, run under node, against Python's numbers."""
import itertools, json, shutil, subprocess
import numpy as np
import pytest
import torch
from causal_tune.core.files import read_asset
from causal_tune.lab.models import FILTER_NAMES, make_band
from causal_tune.lab.page import bundle_script, script_json

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed; the same numbers are compared in a browser (-m browser), fewer of them")
READ = """
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const bytes = v => new DataView(Uint8Array.from(atob(v.base64), c => c.charCodeAt(0)).buffer);
const input = JSON.parse(Buffer.concat(chunks).toString(), (_, v) => v?.base64 === undefined ? v : bytes(v));
const plain = (_, v) => ArrayBuffer.isView(v) ? [...v] : v;
"""


def node(entry: str, code: str, data, tmp_path):
    "What some code prints as JSON; it finds the module's names, and the data as `input`."
    script = tmp_path / "script.mjs"
    script.write_text(bundle_script(entry) + READ + f"console.log(JSON.stringify({code}, plain));", encoding="utf-8")
    done = subprocess.run([NODE, script], input=script_json(data), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def lab():
    from causal_tune import FrequencyLab
    from causal_tune.data.datasets import load_dataset
    data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=2") for d in ("clear", "fog", "night")}
    return FrequencyLab("toy_vit", data, size=(80, 128), state=dict(domain="night"))  # 10 x 16: radii fall on cut-offs


@needs_node
def test_filters_and_shares(lab, tmp_path):
    "Every family, at several cut-offs, with and without DC: gains, curves, cut-offs, shares removed by zone; a formula that differs is noticed."
    from causal_tune.research.figures import gain_curve
    from causal_tune.spectra.energy import suppressed_share, zone_shares
    bands = [dict(filter=name, low=low, high=high, order=order, keep_dc=dc) for name in FILTER_NAMES
             for (low, high, order), dc in itertools.product([(.2, .7, 3), (.13, .42, 1), (.3, 1.3, 2)], [False, True]) if name != "piecewise" or high < 1.4]
    code = """(F => input.bands.map(b => [F.gain(b), F.curve(b), F.cutoffs(b), F.zoneEdges(b), F.shares(b)]))(numbersOf(input.data))"""
    energy = lab.seen.spectra.energy
    for b, (gain, curve, cutoffs, edges, shares) in zip(bands, node("numbers.js", code, dict(data=lab._data, bands=bands), tmp_path), strict=True):
        band = make_band(b["filter"], (b["low"], b["high"]), b["order"], b["keep_dc"])
        np.testing.assert_allclose(np.reshape(gain, lab.grid), band(*lab.grid).detach().numpy(), atol=2e-6, err_msg=str(b))
        np.testing.assert_allclose(cutoffs, band.cutoffs, atol=1e-6, err_msg=str(b))
        zones = tuple(round(cut, 6) for cut in band.cutoffs) if len(band.cutoffs) == 2 else (.2, .7)
        ours = np.stack([suppressed_share(energy, band), *zone_shares(energy, band, zones).values()])
        np.testing.assert_allclose(shares, ours, atol=2e-4, err_msg=str(b))
        r, y = gain_curve(band)
        np.testing.assert_allclose(curve["x"], r, atol=1e-6)
        near = np.min(np.abs(r[:, None] - np.array([b["low"], b["high"]])), 1) < 1e-6  # where an ideal filter jumps, rounding decides
        np.testing.assert_allclose(np.array(curve["y"])[~near], y[~near], atol=3e-6, err_msg=str(b))
    filters = json.loads(json.dumps(lab._data["filters"]))
    assert node("numbers.js", "largestError(input)", filters, tmp_path) < 1e-5
    filters["dog"]["radial_gain"][0] = "add"
    assert node("numbers.js", "largestError(input)", filters, tmp_path) > .1


@needs_node
def test_spectra_differences_and_parts(lab, tmp_path):
    "Rings, dB and points, the two parts of a projection, a coefficient's pattern, the radius below which most of what is removed lies."
    from causal_tune.spectra.bands import split_by_band
    from causal_tune.spectra.dct import idct2
    from causal_tune.spectra.energy import energy_change_db, radial_profile
    code = """(F => {
        const band = { filter: "dog", low: .2, high: .7, order: 2, keep_dc: false }, a = F.energyOf("night", 5), b = F.energyOf("clear", 5);
        const image = F.image(input.data.images.night[1].models[0], 4), [before, kept, removed] = F.parts(image.maps, band);
        return { radii: F.radii, rings: F.profile(F.energyOf("night", 4)), shares: F.profile(a, true), decibels: F.change(a, b), points: F.change(a, b, true),
                 before, kept, removed, pattern: F.pattern(2, 3), most: F.radiusBelow(a, band), norms: image.norms };
    })(numbersOf(input.data))"""
    found = node("numbers.js", code, dict(data=lab._data), tmp_path)
    a, b = lab.seen.spectra.energy[2, 5], lab.seen.spectra.energy[0, 5]
    rings = radial_profile(lab.seen.spectra.energy)
    np.testing.assert_allclose(found["radii"], rings.radii, rtol=1e-6)
    np.testing.assert_allclose(found["rings"], rings.energy[2, 4], rtol=2e-4)
    np.testing.assert_allclose(sum(found["shares"]), 100, rtol=1e-9)
    decibels = [np.nan if v is None else v for v in found["decibels"]]
    np.testing.assert_allclose(np.reshape(decibels, lab.grid), energy_change_db(a, b), atol=2e-3)
    def share(energy): return energy * (np.arange(energy.size).reshape(energy.shape) > 0) / energy.ravel()[1:].sum()
    np.testing.assert_allclose(np.reshape(found["points"], lab.grid), 100 * (share(a) - share(b)), atol=.01)
    z = torch.from_numpy(lab.seen.maps["night"][1, 4].astype(np.float32))
    for name, part in zip(("before", "kept", "removed"), (z, *split_by_band(z, "dog"))):
        np.testing.assert_allclose(np.reshape(found[name], z.shape), part, atol=.02 * z.abs().max(), err_msg=name)
    spike = torch.zeros(lab.grid)
    spike[2, 3] = 1
    np.testing.assert_allclose(np.reshape(found["pattern"], lab.grid), idct2(spike), atol=1e-6)
    np.testing.assert_allclose(np.reshape(found["norms"], lab.grid), lab.seen.norms["night"][1, 4], atol=np.ptp(lab.seen.norms["night"][1, 4]) / 254)
    weight = share(a) * (1 - lab.band(*lab.grid).numpy()) ** 2
    from causal_tune.spectra.bands import radial_frequency
    radius = radial_frequency(*lab.grid).numpy()
    assert weight[radius < found["most"] - 1e-6].sum() < .9 * weight.sum() <= weight[radius <= found["most"] + 1e-6].sum()


@needs_node
def test_refusals_and_numbers_as_text(lab, tmp_path):
    "Cut-offs that Python refuses are refused; numbers are formatted readably."
    code = """({ said: input.cuts.map(([name, cuts]) => refusal(input.data.filters[name], cuts) ?? null),
               amounts: [270.4, 1013.2, .01234, 4.2e7, 0].map(amount), percents: [.314, .0126, 1].map(percent), signed: [1.26, -.04, -3].map(v => signed(v, 1)) })"""
    cuts = [("ideal", (.4, .4)), ("gaussian", (.3, .2)), ("piecewise", (1.1, 1.2)), ("dog", (.2, .7)), ("none", (.5, .2))]
    found = node("numbers.js", code, dict(data=lab._data, cuts=cuts), tmp_path)
    for (name, edges), said in zip(cuts, found["said"]):
        try: make_band(name, edges)
        except ValueError: assert said == f"The lower cut-off must be below {min(edges[1], 1) if name == 'piecewise' else edges[1]}, not {edges[0]}.", name
        else: assert said is None, name
    assert found["amounts"] == ["270", "1,013", "0.0123", "4.20 × 10⁷", "0"]
    assert found["percents"] == ["31%", "1.3%", "100%"] and found["signed"] == ["+1.3", "0.0", "−3.0"]


@needs_node
def test_a_patched_cell_in_words(tmp_path):
    "Text of a map's cell, highlighted cells, and requests to Python."
    row = dict(mean=3.24, mean_low=1.06, mean_high=12.4, recover=-1.96, damage=4.5, excess=2, excess_low=.3, excess_high=3.75, energy_share=.231, restored=.5, broken=.0123)
    data = dict(domains=["clear", "night"], picks=[0, 5], layers=[3, 7])
    state = dict(disturbed="night", severity=4, twin="clear", patch_mode="complete", image=1, layer=1, patch_band=2)
    labs = [dict(data=data, state=state | more) for more in ({}, dict(disturbed="corruption: fog"))]
    code = """({ said: cellText(input.row), prefix: cellText({ ...input.row, excess: null, energy_share: null }).length,
               stand: [.3, 0, -.1, null, undefined].map(v => stands({ excess_low: v })), asked: input.labs.map(patchSetting) })"""
    found = node("cause.js", code, dict(row=row, labs=labs), tmp_path)
    assert found["said"] == ["+3.2 points [+1.1 to +12]", "put in alone −2.0, missing alone +4.5", "+2.0 more than coefficients of equal energy [+0.3 to +3.8]",
                             "23% of the difference's energy", "50% of the changed pixels restored, 1.2% of the others broken"]
    assert found["prefix"] == 3 and found["stand"] == [True, False, False, False, False]
    asked = dict(disturbed="night", severity=0, twin="clear", patch_mode="complete", image=5, block=7, patch_band=2)
    assert found["asked"] == [asked, asked | dict(disturbed="corruption: fog", severity=4)]


@needs_node
def test_the_bundle_parses_and_names_no_host(tmp_path):
    "One module: no duplicate names, no imports, no address except that of SVG."
    for entry in ("widget.js", "page.js", "watch.js"):
        script = tmp_path / "bundle.mjs"
        script.write_text(bundle_script(entry), encoding="utf-8")
        done = subprocess.run([NODE, "--check", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        text = script.read_text(encoding="utf-8") + read_asset("lab/lab.css")
        assert "import " not in text and text.replace("http://www.w3.org/2000/svg", "").count("http") == 0, entry

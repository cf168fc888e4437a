"""No access from outside: names stay text, pages hold no local path, the lab is bound to this machine, archives are not unpacked."""
import os, re, subprocess, time, urllib.error, urllib.request
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
import numpy as np
import pytest
from PIL import Image
import causal_tune
from causal_tune.models.backbones import create_backbone
from causal_tune.cli import main
from causal_tune.lab.widget import FrequencyLab
from causal_tune.data.images import image_files

HOSTILE = ["<script>steal()</script>", "</script><img src=x onerror=steal()>", "\"onmouseover=\"steal()\" x='", "a\nb", "x" * 200,
           "\u202egnp.exe", "<!--", "${steal()}", "&lt;b&gt;"]


class Page(HTMLParser):
    "The elements of a page and their attributes."
    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)
        self.close()
    def handle_starttag(self, tag, attributes): self.elements.append((tag, dict(attributes)))


def foreign(text: str) -> list: # elements and attributes that come of a name
    return [(tag, attributes) for tag, attributes in Page(text).elements
            if any(name.startswith("on") for name in attributes) or attributes.get("src") == "x" or "steal()" in str(tag)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A valid and a damaged image in a folder with a unique path."
    folder = tmp_path_factory.mktemp("secret") / "place of mine"
    folder.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "street.png")
    (folder / "torn.png").write_bytes((folder / "street.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    "The exported page of a lab with hostile domains, images from files and weights from a file."
    from safetensors.torch import save_file
    weights = folder / "weights.safetensors"
    save_file(create_backbone("toy_vit", pretrained=False).model.state_dict(), weights)
    lab = FrequencyLab(create_backbone("toy_vit", pretrained=str(weights)), {name: image_files(folder) for name in HOSTILE})
    made = lab.export_html(tmp_path_factory.mktemp("page") / "lab.html").read_text(encoding="utf-8")
    lab.close()
    return made


def test_names_stay_text_in_the_page(page):
    assert foreign(page) == []
    scripts = [tag for tag, _ in Page(page).elements if tag == "script"]
    harmless = FrequencyLab(create_backbone("toy_vit", pretrained=False), {"fog": [np.zeros((64, 64, 3), np.uint8)]})
    with TemporaryDirectory() as place: plain = harmless.export_html(Path(place) / "lab.html").read_text(encoding="utf-8")
    harmless.close()
    assert scripts == [tag for tag, _ in Page(plain).elements if tag == "script"]


def test_the_page_holds_no_local_path(page, folder):
    assert "torn.png" in page, "what was left out is said"
    for path in (folder, folder.parent, Path.home(), Path.cwd(), Path(causal_tune.__file__).parent):
        assert str(path) not in page, path


def test_no_archive_is_unpacked():
    "So none can write outside its folder."
    for module in Path(causal_tune.__file__).parent.glob("*.py"):
        assert not re.search(r"\.extract(all)?\(|unpack_archive", module.read_text(encoding="utf-8")), module


def test_the_lab_is_bound_to_this_machine(tmp_path, monkeypatch):
    from causal_tune.lab import launch
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "launch_lab", lambda *args, **options: calls.append((args, options))) # which would put JupyterLab in the place of these tests
    assert not main(["lab", "--out", str(tmp_path), "--port=8889", "--no-browser"])
    (notebook,), options = calls[0]
    assert options == dict(browser=False, words=["--port=8889"])
    words = launch.jupyter_command(notebook, options["words"])
    assert "--ip=127.0.0.1" in words and not any("token" in word or "password" in word for word in words)


def listening(port: int) -> set[str]: # addresses in hexadecimal, as the kernel lists them
    "Who listens on a port of this machine."
    lines = [line.split() for file in ("/proc/net/tcp", "/proc/net/tcp6") if Path(file).exists()
             for line in Path(file).read_text().splitlines()[1:]]
    return {words[1].partition(":")[0] for words in lines if words[3] == "0A" and int(words[1].partition(":")[2], 16) == port}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="who listens is read from /proc")
def test_a_real_lab_listens_to_this_machine_alone_and_asks_for_its_token(tmp_path):
    from browser import free_port
    from conftest import COMMAND, ENV
    port = free_port()
    words = [COMMAND, "lab", "--no-browser", f"--port={port}", "--port-retries=0"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(words, cwd=tmp_path, env=ENV | dict(JUPYTER_CONFIG_DIR=str(tmp_path)), stdout=log, stderr=log,
                                  start_new_session=True)
    try:
        until = time.time() + 90
        while not listening(port) and time.time() < until and server.poll() is None: time.sleep(.2)
        assert listening(port) == {"0100007F"}, (tmp_path / "log").read_text()[-2000:]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/contents", timeout=30)
        assert refused.value.code == 403
        server.terminate()  # it alone: there is no second process that could be left behind
        server.wait(60)
        assert listening(port) == set()
    finally:
        if server.poll() is None: os.killpg(server.pid, 15)
        server.wait(60)


def test_names_stay_text_in_the_report(tmp_path):
    "Domains, adapters and classes, in its tables, figures and what was done."
    import plotly.graph_objects as go
    from causal_tune.data.labels import LabelSpace
    from causal_tune.compare.report import write_report
    from causal_tune.research.statistics import BootstrapScores, paired_differences
    names = [name for name in HOSTILE if "\n" not in name] # which results refuse
    space = LabelSpace(names[0], tuple(names), np.zeros((len(names), 3), np.uint8))
    rows = [dict(adapter=adapter, seed=seed, domain=domain, miou=.5, iou=dict.fromkeys(names, .5))
            for adapter in ("none", *names[:3]) for seed in (1, 2) for domain in names]
    drawn = {(row["adapter"], row["domain"]): BootstrapScores(np.full((11, 2), .5), 5) for row in rows}
    path = write_report(tmp_path / "report.html", HOSTILE[1], HOSTILE[0], rows, paired_differences(drawn), [(names[0], names[1], go.Figure())],
                        {HOSTILE[0]: HOSTILE[1]}, space, command=HOSTILE[0])
    assert foreign(path.read_text(encoding="utf-8")) == []

"""Shared fixtures: the command line as a user calls it, and a toy_vit file that needs no pre-training."""
import ctypes, os, signal, subprocess, sys, time
from functools import partial
from tempfile import TemporaryFile
from importlib.util import find_spec
from pathlib import Path
import pytest
from forks import fork

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).parent / "causal-tune"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; more threads are slower on models this small
ENV = {name: value for name, value in os.environ.items() if not name.startswith("TQDM")} # bars are read, and stopped at
ENV |= dict(ACCELERATE_USE_CPU="true", PYTHONWARNINGS="ignore")


def exit_with_pytest(start=subprocess.Popen.__init__):
    "Kill processes that tests start when pytest exits for any reason (PR_SET_PDEATHSIG of Linux)."
    if not sys.platform.startswith("linux"): return
    libc = ctypes.CDLL(None)
    def begin(process, *args, preexec_fn=None, **options):
        def prepare(): # what a test asks for comes after it, never instead
            libc.prctl(1, signal.SIGKILL)
            if preexec_fn: preexec_fn()
        start(process, *args, preexec_fn=prepare, **options)
    subprocess.Popen.__init__ = begin


exit_with_pytest()


def pytest_report_header():
    from causal_tune.research.figures import find_browser
    return f"browser: {find_browser() or 'none found'}"


def missing():
    "Missing requirement of tests that open pages or draw pictures, or None."
    from causal_tune.research.figures import find_browser
    if find_spec("playwright") is None: return "playwright is not installed"
    if find_browser() is None: return "no Chrome or Chromium was found"


# Trials that take minutes: commands killed at any moment, runs of several processes and machines, torch's compiler and exporter, fuzzing, wheels.
# `make test-long` runs them; `make test` and `make check` leave them out and do not even import these files.
LONG_FILES = {f"test_{name}" for name in "cluster export fuzz kills packaging processes shards speed".split()}
LONG_TESTS = {f"test_{name}" for name in """a_real_lab_listens_to_this_machine_alone_and_asks_for_its_token compiled_whole_and_exported
    ctrl_c_to_the_parent_alone_stops_its_workers""".split()}
# Other tests that take over a second: whole trainings, command lines. `make check` leaves them out as well.
SLOW_FILES = {f"test_{name}" for name in "cli corruptions evidence lab memory properties published quality readme resume same step".split()}
SLOW_TESTS = {f"test_{name}" for name in """an_adapter_of_ones_own damaged_files_give_pixels_or_one_clear_line
    exported_with_open_sizes folders_from_training_to_prediction full_size_on_meta half_the_precision
    killed_stopped_and_finished names_and_shapes_at_vit_l no_name_is_missing_in_a_fresh_process number_of_masks_is_a_mean_over_processes
    resume_with_a_style_is_exact scores_that_are_no_numbers_end_predict_eval_and_export small_forward_and_backward
    trained_and_loaded""".split()}


def pytest_ignore_collect(collection_path, config):
    "Ignore the files of tests that are deselected."
    expression = config.option.markexpr
    if "not slow" in expression and collection_path.stem in SLOW_FILES | LONG_FILES: return True
    if "not long" in expression and collection_path.stem in LONG_FILES: return True


def pytest_collection_modifyitems(items):
    "Mark slow and long tests; skip tests marked `browser` where they cannot run, with the reason."
    reason = missing()
    for item in items:
        long = item.path.stem in LONG_FILES or item.function.__name__ in LONG_TESTS
        if long: item.add_marker("long")
        if long or item.path.stem in SLOW_FILES or item.function.__name__ in SLOW_TESTS or "cli" in item.fixturenames: item.add_marker("slow")
        if reason and item.get_closest_marker("browser"): item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    "Random weights of toy_vit in a file."
    import torch
    from safetensors.torch import save_file
    from causal_tune.models.backbones import create_backbone
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "toy_vit.safetensors"
    save_file(create_backbone("toy_vit", pretrained=False).model.state_dict(), path)
    return path


def run_forked(function, cwd, env=ENV, timeout=90):
    "`function` in a fork, as `subprocess.run` would call a command."
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        pid, end = fork(function, cwd, env, out.fileno(), err.fileno()), time.time() + timeout
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.time() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise subprocess.TimeoutExpired(function, timeout)
            time.sleep(.02)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess(function, os.waitstatus_to_exitcode(ended[1]), *said)


def command(words, cwd, env=ENV, timeout=90):
    "Run `causal-tune` with these arguments: in a fork, or in a new process where forking is unavailable or could not use the GPU."
    import torch
    words = list(map(str, words))
    if not hasattr(os, "fork") or torch.cuda.is_available():
        return subprocess.run([COMMAND, *words], cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True)
    from causal_tune.cli import main
    return run_forked(partial(main, words), cwd, env, timeout)


@pytest.fixture
def cli(tmp_path):
    "Calls `causal-tune` in an empty folder."
    return lambda *words, **options: command(words, tmp_path, **options)


@pytest.fixture
def tiny(weights):
    "Options that turn a recipe into one of a few seconds."
    return ["--weights", weights, "--train", "toyscapes:domain=clear,split=train,n=4",
            "--targets", "toyscapes:domain=fog,split=test,n=1", "--crop", "32x48", "--eval_size", "32x48",
            "--batch_size", "2", "--precision", "no"]


def trained(path):
    "Adapter and head of a checkpoint, as one dict of tensors."
    import torch
    content = torch.load(path, weights_only=True)
    return {f"{part}.{k}": v for part in ("adapter", "head") for k, v in content[part].items()}

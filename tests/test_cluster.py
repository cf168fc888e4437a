"""A grid on Ray has the same rows as a local one, also if a machine fails during the run."""
import os, socket, threading, time
from contextlib import suppress
from dataclasses import replace
import psutil
import pytest
from causal_tune.compare.grid import on_cluster, run_grid
from causal_tune.training.recipe import Recipe

# read when Ray is imported: what it waits for, and how nice its processes are, is too little and too much on a busy machine
os.environ |= dict(RAY_raylet_start_wait_time_s="200", RAY_worker_niceness="0")
pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")


@pytest.fixture(scope="module")
def grid(weights):
    "Three runs of some seconds each; one thread, as workers have it."
    one = Recipe("small", weights=str(weights), train="toyscapes:domain=clear,split=train,n=4", head="linear", crop=(32, 48),
                 iterations=30, save_every=5, batch_size=2, eval_size=(32, 48), targets=("toyscapes:domain=fog,split=test,n=3",))
    return {f"none-{seed}": replace(one, seed=seed) for seed in range(3)}


@pytest.fixture(scope="module")
def expected(grid, tmp_path_factory):
    return run_grid(grid, tmp_path_factory.mktemp("local"), jobs=1)


def node():
    "A machine. Where its agents listen is said, as it waits for them 15 seconds otherwise, too few where all is busy."
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [s.getsockname()[1] for s in listening]
    for s in listening: s.close()
    names = "metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port"
    return dict(num_cpus=1, object_store_memory=80_000_000) | dict(zip(names, ports))


@pytest.fixture
def cluster():
    "Two machines, as Ray sees it, with a processor each, and a third that keeps count."
    from ray.cluster_utils import Cluster
    made = Cluster(initialize_head=True, head_node_args=node() | dict(num_cpus=0))
    made.workers = [made.add_node(**node()) for _ in range(2)]
    yield made
    made.shutdown()


def parent(lock):
    "Of the process that works in a folder: what runs a machine, as Ray sees it."
    try: return psutil.Process(int(lock.read_text().split()[0])).ppid()
    except (OSError, IndexError, psutil.Error): return None


def numbers(rows): return [{k: v for k, v in row.items() if k != "version"} for row in rows]


def test_a_machine_dies_in_the_middle(grid, expected, cluster, tmp_path):
    def kill():
        while not killed:
            time.sleep(.02)
            at_work = {parent(run.with_name(".lock.holder")): run.parent.name for run in tmp_path.glob("*/resume.pt")}
            for machine in cluster.workers:
                name = at_work.get(machine.all_processes["raylet"][0].process.pid)
                with suppress(ValueError): # the one that this process speaks to may not be removed
                    if name and not cluster.remove_node(machine, allow_graceful=False): killed.append(name)
                if killed: break
    killed = []
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with on_cluster(cluster.address): rows = run_grid(grid, tmp_path)
    killer.join(60)
    assert len(killed) == 1
    assert numbers(rows) == numbers(expected)
    assert sorted(path.parent.name for path in tmp_path.glob("*/results.json")) == sorted(grid)
    assert not list(tmp_path.glob("*/resume.pt")) and not list(tmp_path.glob("*/*~*"))


def test_one_of_its_own(grid, expected, tmp_path, monkeypatch):
    "Its messages are one line, as in a local run."
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    first = next(iter(grid.items()))
    with on_cluster("auto"):
        assert numbers(run_grid(dict([first]), tmp_path)) == numbers(expected[:1])
        wild = dict(wild=replace(first[1], lr=1000., iterations=90))
        with pytest.raises(FloatingPointError, match="^[^\n]*lower lr[^\n]*$"): run_grid(wild, tmp_path)
    assert not ray.is_initialized()


def test_a_cluster_that_does_not_answer():
    with pytest.raises(OSError, match="No Ray cluster answers at 127.0.0.1:1 "): on_cluster("127.0.0.1:1").__enter__()

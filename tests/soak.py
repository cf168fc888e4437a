"""Does memory stay constant over hours? `python tests/soak.py [--minutes 120]` trains, evaluates and predicts in one process.

A round trains one adapter with one head for a few steps in a new folder, leaves off halfway, goes on from what was saved, opens the
checkpoint, evaluates it and predicts an image; the next round takes the next pair, until the time is over or Ctrl-C or TERM comes.
What the process holds after each round goes into a CSV. The slope is that of the means over whole turns through all pairs, without
the first tenth of the turns (two at least); exit status 1 if it is more than 1 kB a round.
"""
import argparse, csv, itertools, os, shutil, signal, sys, tempfile, time
os.environ |= dict(TQDM_DISABLE="1", ACCELERATE_USE_CPU="true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
from contextlib import redirect_stdout
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import save_file
from memory import held, slope
from causal_tune.adapters.base import list_adapters
from causal_tune.models.backbones import create_backbone
from causal_tune.models.heads import HEADS
from causal_tune.training.recipe import Recipe, get_recipe
from causal_tune.training.checkpoint import load_checkpoint
from causal_tune.training.loop import evaluate_on, train

WARM_UP = 2 # turns through all pairs, at least
SMALL = dict(soma="soma:first_layer=4", mask2former="mask2former:width=64,encoder_layers=2,decoder_layers=3,points=1024") # as specs


def recipe_of(adapter: str, head: str, weights: Path) -> Recipe:
    "Four steps on small images."
    adapter, head = (SMALL.get(name, name) for name in (adapter, head))
    return get_recipe("demo", adapter=adapter, head=head, weights=str(weights), precision="no", iterations=4, save_every=1,
                      crop=(32, 48), batch_size=2, eval_size=(32, 48), train="toyscapes:domain=clear,split=train,n=4",
                      validate="toyscapes:domain=clear,split=val,n=2", eval_every=2)


def one_round(recipe: Recipe, folder: Path) -> None:
    "Train in two parts, open, evaluate, predict."
    train(recipe, folder, stop=2)
    train(recipe, folder)
    segmentor, recipe, _ = load_checkpoint(folder / "checkpoint.pt")
    evaluate_on(segmentor, recipe, "toyscapes:domain=fog,split=test,n=2")
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    segmentor.predict(image, size=(32, 48))


def rounds(pairs, minutes: float, place: Path):
    "Yields number, adapter, head and seconds of each round."
    torch.manual_seed(0)
    weights = place / "toy_vit.safetensors"
    save_file(create_backbone("toy_vit", pretrained=False).model.state_dict(), weights)
    end = time.time() + 60 * minutes
    for i, (adapter, head) in enumerate(itertools.cycle(pairs)):
        start = time.time()
        if start > end: return
        folder = place / str(i)
        with redirect_stdout(None): one_round(recipe_of(adapter, head, weights), folder)
        shutil.rmtree(folder)
        yield i, adapter, head, time.time() - start


def verdict(kilobytes, seconds: float, turn: int) -> bool:
    "Print the measurements; returns whether memory was constant."
    n = len(kilobytes)
    warm_up = max(WARM_UP, n // turn // 10) * turn
    if n < warm_up + 3 * turn:
        print(f"{n} rounds are too few for a verdict; {warm_up + 3 * turn} are needed")
        return False
    first, last = kilobytes[warm_up] / 1024, kilobytes[-1] / 1024
    print(f"{n} rounds in {seconds / 60:.1f} minutes; {first:.1f} MB held after the warm-up of {warm_up} rounds, {last:.1f} after the last")
    found = slope(kilobytes[warm_up:], turn)
    hourly = 3600 / (seconds / n) / 1024
    print(f"slope {found}, or {found.value * hourly:+.2f} MB an hour ({found.low * hourly:+.2f} to {found.high * hourly:+.2f})")
    print("constant" if found.constant else "NOT constant")
    return found.constant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=120, help="how long (default: 120)")
    parser.add_argument("--only", default="", help="those pairs whose name, such as rein+dpt, contains this")
    parser.add_argument("--csv", default="runs/soak.csv", help="file for what was held after each round")
    args = parser.parse_args()
    pairs = [pair for pair in itertools.product(list_adapters(), HEADS) if args.only in "+".join(pair)]
    if not pairs: parser.error(f"no pair of adapter and head is called {args.only!r}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Path(args.csv).parent.mkdir(parents=True, exist_ok=True)
    kilobytes = []
    start = time.time()
    with open(args.csv, "w", newline="", buffering=1) as file, tempfile.TemporaryDirectory() as place:
        out = csv.writer(file)
        out.writerow(["round", "adapter", "head", "seconds", "kB"])
        try:
            for i, adapter, head, seconds in rounds(pairs, args.minutes, Path(place)):
                kilobytes.append(held())
                out.writerow([i, adapter, head, f"{seconds:.2f}", f"{kilobytes[-1]:.0f}"])
                if (i + 1) % len(pairs): continue
                print(f"{(time.time() - start) / 60:6.1f} min, {i + 1} rounds, {kilobytes[-1] / 1024:.1f} MB", flush=True)
        except KeyboardInterrupt: print("interrupted")
    return 0 if verdict(kilobytes, time.time() - start, len(pairs)) else 1


if __name__ == "__main__": sys.exit(main())

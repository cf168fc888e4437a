"""Memory is released."""
import gc, weakref
from memory import pictures, slope, toy
from causal_tune.lab.widget import FrequencyLab


def collect():
    for _ in range(3): gc.collect()  # what has a finalizer goes in the second pass


def test_a_closed_lab_holds_no_model():
    "Also while a reference to the lab exists, as in a notebook's cell."
    model = toy()
    lab = FrequencyLab(model, pictures())
    seen = weakref.ref(model)
    lab.close()
    del model
    collect()
    assert seen() is None
    lab.close()  # the second time nothing happens


def test_nobody_holds_a_closed_lab():
    lab = FrequencyLab(toy(), pictures())
    seen = weakref.ref(lab)
    lab.close()
    del lab
    collect()
    assert seen() is None


def test_slope():
    grows = [1000 + 3 * i + (500 if i == 40 else 0) + i % 4 for i in range(80)]
    assert abs(slope(grows, 4).value - 3) < .1 and not slope(grows).constant
    assert slope([100, 104, 96, 100, 100, 104]).constant

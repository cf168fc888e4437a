import sys; sys.path.insert(0, "/tmp/wt/head/tests")
import test_readme as T
from conftest import *
from test_readme import world, smaller, run, commands
def test_page(smaller, world, capsys):
    for line in commands("docs/coming_from.md"):
        run(line, capsys); print(line, capsys.readouterr().out[-600:], file=sys.stderr)

"""The command line, `causal-tune`."""


def main(*args, **options): # as `commands.main`
    from .commands import main
    return main(*args, **options)

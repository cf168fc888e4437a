"`python -m causal_tune` is the command line, for programs that start Python themselves, such as torchrun."
import sys
from .cli import main

if __name__ == "__main__": sys.exit(main())

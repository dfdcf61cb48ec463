"""``python -m minigen`` is the command ``minigen``."""

from minigen.cli import main

main()

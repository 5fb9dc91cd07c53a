"""``python -m amfvi`` is the command ``amfvi``."""

from amfvi.cli import main

main()

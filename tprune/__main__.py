"""The console command `tprune`, and `python -m tprune`.

Ctrl-C gives one line even while the command is being imported, and so does an installation that lost its folder.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from tprune.cli import main as cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("tprune: interrupted\n")
        raise SystemExit(130) from None
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("tprune."):
            raise
        again = "pip install --editable FOLDER"
        sys.stderr.write(f"tprune: {error.name} is missing; if its clone was moved, install it again: {again}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

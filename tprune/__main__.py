"""The console command `tprune`, and `python -m tprune`: Ctrl-C is one line even while the command is being imported."""

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


if __name__ == "__main__":
    main()

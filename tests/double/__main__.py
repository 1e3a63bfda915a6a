"""`python -m tests.double fetch` and `python -m tests.double start --port N`; see the package's own text."""

from __future__ import annotations

import argparse
import signal
import sys

from . import __doc__ as description
from . import looks, parts
from .device import started
from .missing import Missing


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.double", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("fetch", help="fetch the parts through apt into the cache folder")
    start = verbs.add_parser("start", help="run a double until Ctrl-C")
    start.add_argument("--port", type=int, required=True, help="port of 127.0.0.1 at which its adbd listens")
    start.add_argument("--abi", choices=looks.ABIS, default="arm64-v8a", help="of its programs (default: %(default)s)")
    start.add_argument("--storage", default="", metavar="SIZE", help="of its /data/local/tmp, such as 8m")
    words = parser.parse_args()
    try:
        if words.verb == "fetch":
            sys.stdout.write(f"the device double's parts: {parts.fetch()}\n")
        else:
            _run(words.port, words.abi, words.storage)
    except Missing as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


def _run(port: int, abi: str, storage: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with started(abi=abi, port=port, storage=storage) as double:
            sys.stdout.write(
                f"running, {abi}: adb connect {double.serial}   (its files: {double.root}; Ctrl-C ends it)\n"
            )
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    sys.exit(main())

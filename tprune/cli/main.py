"""The `tprune` command: each verb parses, calls the library, and shows the result. No work is done here.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong; both failures are one line on stderr.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.base.processor import check_environment, usable_threads
from tprune.base.threads import spin_briefly, use_threads
from tprune.cli import images as cli_cnn
from tprune.cli import terminal
from tprune.cli.artefact import bench, evaluate, export, report
from tprune.cli.compare import compare
from tprune.cli.model import analyse, expand, prune, verify
from tprune.cli.options import Json, Seed
from tprune.cli.simulate import simulate
from tprune.cli.translate import translate

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
spin_briefly()

app = typer.Typer(
    help="Prune Marian translation models, export them, and measure what it costs and gains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def doctor(
    need: Annotated[str | None, typer.Option(help="One step only; exit code 1 when it is not possible.")] = None,
    json: Json = False,
) -> None:
    """Tell for each step what is here, what is missing, and the one command that mends it. Changes nothing."""
    from tprune.bench import doctor as checkup

    steps = checkup.examine(need)
    document = checkup.document(steps)
    lines = checkup.lines(document["machine"], [] if need else steps)  # with `need` the error says how to mend it
    terminal.answer(document, as_json=json, table=checkup.table(steps), lines=lines)
    if need:
        checkup.require(steps)


def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("demo"),
    seed: Seed = 0,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads; 2 where there are as many CPUs.", min=1, max=4096, show_default=False),
    ] = None,
) -> None:
    """Do the whole journey on embedded data: train, analyse, prune, verify, export, bench, report."""
    from tprune.demo import build as ingredients

    threads = threads or min(2, usable_threads())
    use_threads(threads)
    stamp.check_vacant(out)
    terminal.warn_if_busy()
    began = time.monotonic()
    calls = ingredients.journey(out, ingredients.Demo(out / "data", out / "dense"), threads=threads)
    steps = 1 + len(calls)
    try:
        with terminal.logged():
            whole = terminal.duration(ingredients.TRAINING / ingredients.share_done(calls, 0))
            _head(f"step 1 of {steps}: train the dense model (two quiet cores with AVX2 take {whole} for all)")
            with terminal.bar() as show:
                ingredients.build(
                    out, seed=seed, watch=lambda done, n, loss: show("train", done, n, f"loss {loss:.2f}")
                )
            for number, call in enumerate(calls, 2):
                share = ingredients.share_done(calls, number - 2)
                left = terminal.duration((time.monotonic() - began) * (1 - share) / share)
                _head(f"step {number} of {steps}, {left} left: $ tprune {' '.join(call)}")
                terminal.call(app, call)
    except KeyboardInterrupt:
        terminal.fail(1, f"interrupted; the demo starts anew: remove {str(out)!r} and give the same command again")


def _head(line: str) -> None:
    terminal.talk.print(line, style="bold", highlight=False, markup=False, soft_wrap=True)


for verb in (
    analyse,
    prune,
    verify,
    expand,
    translate,
    evaluate,
    export,
    bench,
    compare,
    report,
    simulate,
    doctor,
    demo,
):  # the order of --help
    app.command()(verb)
app.add_typer(cli_cnn.app, name="cnn")


def main() -> None:
    """Run the command line: the console command `tprune`."""
    try:
        if sys.argv[1:2] != ["doctor"]:  # which lists it among the hazards
            check_environment(os.environ)
    except BadInput as error:
        terminal.fail(2, str(error))
    terminal.run(app)


if __name__ == "__main__":
    main()

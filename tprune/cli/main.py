"""The `tprune` command. Each verb parses its flags, calls one function of `tprune.verbs` and prints the result.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong. Both failures are one line on stderr.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tprune.base.errors import BadInput
from tprune.base.processor import check_environment
from tprune.base.threads import spin_briefly
from tprune.cli import images as cli_cnn
from tprune.cli import terminal
from tprune.cli.artefact import bench, evaluate, export, report
from tprune.cli.compare import compare
from tprune.cli.model import analyse, expand, prune, translate, verify
from tprune.cli.options import Json, Seed
from tprune.cli.simulate import simulate

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
spin_briefly()

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def doctor(
    need: Annotated[str | None, typer.Option(help="One step only; exit code 1 if it is not possible.")] = None,
    json: Json = False,
) -> None:
    """List what each step needs, what is missing, and the command that installs it. Changes nothing."""
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
        typer.Option(help="CPU threads; 2 if there are as many CPUs.", min=1, max=4096, show_default=False),
    ] = None,
) -> None:
    """Run the whole journey on embedded data: train, analyse, prune, verify, export, bench, report."""
    from tprune.verbs import demo as verb

    def begin(step: verb.Step) -> None:
        left, head = terminal.duration(step.left), f"step {step.number} of {step.total}"
        if step.call:
            terminal.say(f"{head}, {left} left: $ tprune {' '.join(step.call)}", "bold")
        else:
            terminal.warn_if_busy()
            terminal.say(f"{head}: train the dense model (two quiet cores with AVX2 take {left} for all)", "bold")

    try:
        with terminal.logged(), terminal.bar() as show:
            verb.demo(out, partial(terminal.call, app), seed=seed, threads=threads, begin=begin, watch=show)
    except KeyboardInterrupt:
        terminal.fail(1, f"interrupted; the demo starts anew: remove {str(out)!r} and give the same command again")


def version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from importlib.metadata import version as installed

        sys.stdout.write(f"tprune {installed('tprune')}\n")
        raise typer.Exit


@app.callback()
def tprune(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Prune Marian translation models, export them, and measure cost and gain."""


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
        if sys.argv[1:2] != ["doctor"]:  # doctor lists it as a hazard
            check_environment(os.environ)
    except BadInput as error:
        terminal.fail(2, str(error))
    terminal.run(app)


if __name__ == "__main__":
    main()

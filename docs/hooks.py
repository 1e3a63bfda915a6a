"""MkDocs hook: generate the command-line reference and the API pages, and serve files that lie outside docs/.

The folders cnn/, export/ and bench/ are sub-packages of tprune; a copy in build/api shows them to the API generator,
which resolves symbolic links.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "api" / "tprune"
# Files of the repository that the documentation links to, and where the site has them.
OUTSIDE = {
    "android_runner/README.md": "runner.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
    "bench/images.sh": "files/images.sh",
    "bench/multi30k.sh": "files/multi30k.sh",
} | {str(path.relative_to(ROOT)): f"files/{path.name}" for path in (ROOT / "bench" / "results").iterdir()}
PUBLIC = "<!-- the public names -->"
SHIM = "https://unpkg.com/iframe-worker/shim"  # what the theme would load from elsewhere for a search without a server
LINK = re.compile(r"(\]\()([^)\s#:]+)(?=[)#])")


def packages() -> dict[str, Path]:
    """Return the packages of the distribution with their folders, as pyproject.toml maps them."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {name: ROOT / folder for name, folder in tool["package-dir"].items()}
    found = {}
    for name in tool["packages"]:
        top = max((known for known in folders if name == known or name.startswith(f"{known}.")), key=len)
        found[name] = folders[top].joinpath(*name[len(top) :].split(".")[1:])
    return found


def modules(package: str, folder: Path) -> list[str]:
    """Return the package itself, where it says or exports something, and its modules but for `__main__`."""
    init = folder / "__init__.py"
    own = [package] if init.is_file() and init.stat().st_size else []
    return own + sorted(f"{package}.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("__"))


def on_startup(**_: object) -> None:
    """Copy the packages to where the API generator looks; it asks when the configuration is read."""
    shutil.rmtree(COPY, ignore_errors=True)
    for package, folder in packages().items():
        target = COPY.joinpath(*package.split(".")[1:])
        target.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.py"):
            shutil.copy(file, target)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the packages in the navigation."""
    api = next(entry["Python API"] for entry in config.nav or [] if "Python API" in entry)
    api.append(
        {
            "All packages": [
                {name: f"api/{name}.md"}
                for name, folder in packages().items()
                if name != "tprune" and any(folder.glob("*.py"))
            ]
        }
    )
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages and the files from outside docs/."""
    for source, target in OUTSIDE.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "cli.md", content=cli()))
    for package, folder in packages().items():
        if package != "tprune" and any(folder.glob("*.py")):
            text = "\n\n".join(f"::: {name}" for name in modules(package, folder))
            files.append(File.generated(config, f"api/{package}.md", content=f"# {package}\n\n{text}\n"))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the copy in the site."""
    source = next((outside for outside, inside in OUTSIDE.items() if inside == page.file.src_uri), None)
    here = posixpath.dirname(source if source is not None else f"docs/{page.file.src_uri}")

    def inside(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match[2]))
        name = OUTSIDE.get(target) or (target.removeprefix("docs/") if source and target.startswith("docs/") else None)
        if name is None:
            return match[0]
        return match[1] + posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(inside, markdown.replace(PUBLIC, public() if PUBLIC in markdown else ""))


def public() -> str:
    """Return the entries of the names that `import tprune` gives: functions, then classes."""
    import tprune

    names = sorted(tprune.__all__, key=lambda name: (name[0].isupper(), name))
    return "\n\n".join(f"::: tprune.{name}" for name in names)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Load the one script that the theme has elsewhere from the site itself."""
    return output.replace(SHIM, posixpath.relpath("assets/iframe-worker.js", posixpath.dirname(page.url) or "."))


def on_post_template(output: str, *, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for the page of a wrong address."""
    return output.replace(SHIM, "assets/iframe-worker.js")


def cli() -> str:
    """Return a page with the `--help` of every verb."""
    from typer.main import get_command

    from tprune.cli.main import app

    parts = [
        "# Command line\n\nThis page is generated from `--help`.",
        "Exit codes: 0 done; 1 the work failed; 2 the call was wrong, with one line on stderr that says why.",
        "`--json` prints one JSON object on stdout and nothing else there.",
    ]
    for name, context in verbs(get_command(app), "tprune"):
        parts.append(f"## {name}\n\n```text\n{context.get_help()}\n```")
    return "\n\n".join(parts) + "\n"


def verbs(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any]]:
    """Yield every command below `command` with a context that knows its help text."""
    context = command.context_class(command, info_name=name.split(" ")[-1], parent=parent, max_content_width=100)
    context.terminal_width = 100
    yield name, context
    for child in getattr(command, "commands", {}).values():
        yield from verbs(child, f"{name} {child.name}", context)

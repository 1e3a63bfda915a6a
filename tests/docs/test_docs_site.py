"""The documentation site: it builds with every link checked, takes nothing from elsewhere, and has what it should."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="needs the extra docs: pip install '.[docs]'",
)


def build(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Build the site into `folder`."""
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *args]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe)[^>]*\bsrc="(?:https?:)?//[^"]*"|<link[^>]*\bhref="(?:https?:)?//[^"]*"""
    )
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_reference_has_every_verb_and_the_sub_packages(site: Path) -> None:
    commands = (site / "cli.html").read_text(encoding="utf-8")
    for heading in ("tprune prune", "tprune bench", "tprune cnn compress", "tprune doctor"):
        assert f">{heading}<" in re.sub(r"<a class=.headerlink.*?</a>", "", commands), heading
    for page, name in (
        ("tprune.cnn", "tprune.cnn.images.load"),
        ("tprune.export.ort", "tprune.export.ort.export"),
        ("tprune.bench.measure", "tprune.bench.measure.stats.speedup"),
        ("tprune.pruning", "tprune.pruning.verify.verify"),
        ("index", "tprune.load"),
        ("index", "tprune.to_onnx"),
    ):
        assert f'id="{name}"' in (site / "api" / f"{page}.html").read_text(encoding="utf-8"), name


def test_files_from_outside_the_folder_are_in_the_site(site: Path) -> None:
    assert 'src="files/multi30k-pareto.png"' in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "files" / "multi30k.json").is_file() and (site / "files" / "multi30k-pareto.png").is_file()
    assert 'id="phone-day"' in (site / "runner.html").read_text(encoding="utf-8")


def test_a_broken_link_ends_the_build_with_a_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# Hello\n\n[gone](gone.md)\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: x\ndocs_dir: pages\ntheme: {name: material, font: false}\n", "utf-8"
    )
    done = build(tmp_path / "out", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1
    assert "contains a link 'gone.md', but the target is not found" in done.stdout + done.stderr

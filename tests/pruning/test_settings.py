"""The settings load without torch, and their legal names are those of the tables that do the work."""

from __future__ import annotations

import subprocess
import sys

from tprune.pruning.criteria import CRITERIA
from tprune.pruning.penalty import FORMULAS
from tprune.pruning.settings import CRITERIA as NAMES
from tprune.pruning.settings import PENALISED


def test_settings_name_what_the_tables_hold():
    assert NAMES == tuple(CRITERIA)
    assert PENALISED == tuple(FORMULAS)


def test_settings_load_without_torch():
    code = "import sys, tprune.pruning.settings; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

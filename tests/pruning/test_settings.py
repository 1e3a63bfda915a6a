"""The settings load without torch."""

from __future__ import annotations

import subprocess
import sys


def test_settings_load_without_torch():
    code = "import sys, tprune.pruning.settings; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Change a device's settings on request, and restore them whatever happens.

The commands that restore them are written to our folder on the device before anything is changed. They run at the end
of the benchmark, also after Ctrl-C. After a kill or a lost device they run at the next benchmark or with `--clean`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tprune.base.errors import WorkFailed
from tprune.bench.phone.adb import AdbFailed, quote
from tprune.bench.phone.facts import Phone
from tprune.bench.phone.remote import Remote

STAY_ON = "global stay_on_while_plugged_in"
FIXED = "cmd power set-fixed-performance-mode-enabled"
FIXED_SINCE = 30  # Android 11


@contextmanager
def changed(remote: Remote, phone: Phone, *, keep_awake: bool, fixed_performance: bool) -> Iterator[None]:
    """Keep the screen on and the clocks fixed during the `with` block, as requested; then restore both.

    Raise AdbFailed when the device refuses, and with the command to run when a setting could not be restored.
    """
    if not keep_awake and not fixed_performance:
        yield
        return
    do, undo = [], []
    if keep_awake:
        was = re.search(r"^\d{1,3}$", remote.device.ask(f"settings get {STAY_ON}"), re.MULTILINE)
        undo.append(f"settings put {STAY_ON} {was[0] if was else 0}")
        undo += ["input keyevent KEYCODE_SLEEP"] if phone.pulse.screen not in {None, "Awake"} else []
        do += ["svc power stayon true", "input keyevent KEYCODE_WAKEUP"]
    if fixed_performance:
        if phone.sdk is not None and phone.sdk < FIXED_SINCE:
            raise AdbFailed(
                f"device {remote.device.serial}: --fixed-performance needs Android 11, it has {phone.android}"
            )
        undo.append(f"{FIXED} false")
        do.append(f"{FIXED} true")
    here = f"cd {quote([remote.root])}"
    problem: WorkFailed | None = None
    try:
        every = "; ".join([*(f"{step} || failed=1" for step in undo), "exit ${failed:-0}"])
        remote.device.ask(" && ".join([here, f"echo {quote([every])} >undo", *do]))
        yield
    except WorkFailed as error:
        problem = error
        raise
    finally:
        try:
            remote.device.unstoppable().ask(f"{here} && if [ -f undo ]; then sh ./undo && rm undo; fi")
        except AdbFailed as error:
            by_hand = f"adb -s {remote.device.serial} shell {quote(['; '.join(undo)])}"
            raise AdbFailed(
                f"{problem or error}; its settings were not restored: the next tprune bench on it does that, or run: "
                f"{by_hand}"
            ) from None

"""What a session may change on a device when it is asked to, and how that is put back whatever happens.

The commands that put things back lie in our folder on the device before anything is changed. They run when the session
ends, by Ctrl-C too; when it was killed or the device lost, they run at the start of the next session or `--clean`.
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
    """Keep the screen on and the clocks bounded while the block runs, as asked; then put both back.

    Raises AdbFailed when the device refuses, and when something could not be put back, with the command to do it.
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
                f"{problem or error}; its settings were not put back: the next tprune bench on it will do it, or by "
                f"hand: {by_hand}"
            ) from None

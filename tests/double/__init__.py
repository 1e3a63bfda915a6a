"""A phone that is none: Debian's real adbd in private namespaces, in a root that looks like Android's, on loopback.

For people, from the root of the repository (Linux on x86-64 with apt; neither root nor an installation is needed):

    python -m tests.double fetch                               # once: 11 MB through apt's mirror, into the cache folder
    python -m tests.double start --port 5599                   # until Ctrl-C; then: adb connect 127.0.0.1:5599
    python -m tests.double start --port 5599 --abi x86_64      # the same without emulation: fast, but nothing of ARM

For tests, the fixtures of `fixtures.py`: `double` (arm64-v8a, pushed programs run under qemu), `quick_double` (x86_64),
`doubles` (starts one with a small disk, say), `adb_server` (a server of our own: the user's is left alone), `at_adb`.

What it is: a chroot with mksh as sh and toybox as tools (the two that Android has), getprop, dumpsys, settings, svc,
cmd and input that answer from files, cores 2 + 2 + 4, thermal zones, a battery; user id 2000 without any capability;
its own processes, its own /proc, /dev and /sys. The biggest cores are 0 and 1, so that two host cores can be bound to.
It calls itself emulated (ro.hardware tprune-double, ro.boot.qemu 1): what is timed on it says nothing about a phone.
"""

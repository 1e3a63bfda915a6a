"""What is made of /proc/cpuinfo, of the engines' variables and of control groups: all from given texts."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.command import start, tprune
from tprune.base import processor
from tprune.base.errors import BadInput
from tprune.base.processor import Processor, best, check_environment, engines, has_exact_u8s8, hazards, instruction_sets

# The lines that matter as Linux prints them on such processors, shortened. "vmx flags" is a line of its own there.
ZEN3 = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC 7763 64-Core Processor
flags		: fpu vme de pse tsc msr pae mce cx8 sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm \
pni pclmulqdq ssse3 fma cx16 pcid sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm cmp_legacy \
svm abm sse4a fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha_ni xsaveopt umip \
vaes vpclmulqdq rdpid fsrm
bugs		: sysret_ss_attrs null_seg spectre_v1

processor	: 1
model name	: another
flags		: fpu
"""
ALDER_LAKE = """processor	: 0
vendor_id	: GenuineIntel
model name	: 12th Gen Intel(R) Core(TM) i7-12700K
flags		: fpu vme de sse sse2 ht syscall nx lm pni ssse3 sdbg fma cx16 sse4_1 sse4_2 movbe popcnt aes \
xsave avx f16c rdrand abm bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha_ni avx_vnni \
umip gfni vaes vpclmulqdq
vmx flags	: vnmi preemption_timer avx512_vnni
"""
SKYLAKE_SP = """processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz
flags		: fpu sse sse2 syscall nx lm pni ssse3 fma cx16 sse4_1 sse4_2 popcnt aes xsave avx f16c rdrand \
bmi1 hle avx2 bmi2 erms rtm mpx avx512f avx512dq rdseed adx clflushopt clwb avx512cd avx512bw avx512vl \
xsaveopt
"""
SAPPHIRE_RAPIDS = """processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu sse sse2 lm pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c avx2 bmi2 \
avx512f avx512dq adx avx512ifma avx512cd sha_ni avx512bw avx512vl avx_vnni avx512_bf16 avx512vbmi \
avx512_vbmi2 gfni avx512_vnni avx512_bitalg avx512_vpopcntdq amx_bf16 avx512_fp16 amx_tile amx_int8
"""
NEHALEM = """processor	: 0
model name	: Intel(R) Xeon(R) CPU           X5570  @ 2.93GHz
flags		: fpu vme sse sse2 ss ht syscall nx rdtscp lm pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm
"""
CORTEX_A76 = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop \
asimddp
CPU implementer	: 0x41
CPU part	: 0xd0b

Revision	: d04170
Model		: Raspberry Pi 5 Model B Rev 1.0
"""
CORTEX_X2 = """processor	: 0
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm jscvt fcma lrcpc \
dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 frint \
svei8mm svebf16 i8mm bf16 dgh bti
CPU part	: 0xd48
"""
ARMV7 = "model name\t: ARMv7 Processor rev 4 (v7l)\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 crc32\n"

CPUS = {
    "zen3": processor.parse(ZEN3, "x86_64"),
    "alder-lake": processor.parse(ALDER_LAKE, "x86_64"),
    "skylake-sp": processor.parse(SKYLAKE_SP, "x86_64"),
    "sapphire-rapids": processor.parse(SAPPHIRE_RAPIDS, "x86_64"),
    "nehalem": processor.parse(NEHALEM, "x86_64"),
    "a76": processor.parse(CORTEX_A76, "aarch64"),
    "x2": processor.parse(CORTEX_X2, "arm64-v8a"),
    "armv7": processor.parse(ARMV7, "armeabi-v7a"),
    "mac": Processor("i386", "x86_64"),
    "other": processor.parse(ZEN3, "riscv64"),
}
ONEDNN = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


@pytest.fixture
def two_cpus(monkeypatch):
    """This process may use two CPUs, all of them."""
    monkeypatch.setattr(processor, "allowed_cpus", lambda: 2)
    monkeypatch.setattr(processor, "quota", lambda: None)


@pytest.mark.parametrize(
    ("cpu", "sets", "word", "exact"),
    [
        ("zen3", "sse4.1 avx2", "avx2", False),
        ("alder-lake", "sse4.1 avx2 avx-vnni", "avx2-vnni", True),
        ("skylake-sp", "sse4.1 avx2 avx512", "avx512", False),
        ("sapphire-rapids", "sse4.1 avx2 avx-vnni avx512 avx512-vnni amx-int8 amx-bf16", "avx512-amx", True),
        ("nehalem", "sse4.1", "sse4.1", True),
        ("a76", "neon dotprod", "neon-dotprod", True),
        ("x2", "neon dotprod i8mm bf16 sve", "neon-i8mm", True),
        ("armv7", "neon", "neon", True),
        ("mac", "", "unknown", False),
        ("other", "", "unknown", True),
    ],
)
def test_what_processors_have(cpu, sets, word, exact):
    one = CPUS[cpu]
    assert instruction_sets(one) == tuple(sets.split())
    assert (best(one), has_exact_u8s8(one)) == (word, exact)
    assert processor.known(one) == (None if word == "unknown" else word)


def test_a_vnni_without_amx_has_a_word_of_its_own():
    amx = {"amx_tile", "amx_int8", "amx_bf16"}
    assert best(Processor("", "x86_64", CPUS["sapphire-rapids"].flags - amx)) == "avx512-vnni"


def test_models():
    assert CPUS["zen3"].model == "AMD EPYC 7763 64-Core Processor"
    assert CPUS["nehalem"].model == "Intel(R) Xeon(R) CPU X5570 @ 2.93GHz"
    assert CPUS["a76"].model == "Raspberry Pi 5 Model B Rev 1.0"
    assert CPUS["x2"].model == "arm64-v8a"
    assert processor.parse("", "x86_64") == Processor("x86_64", "x86_64")
    assert "avx512_vnni" not in CPUS["alder-lake"].flags  # that line is of what guests may be given


def test_this_machine_is_read_once():
    assert processor.here() is processor.here()
    assert processor.here().model


@pytest.mark.parametrize(
    ("cpu", "torch", "onednn"),
    [
        ("zen3", "avx2", "AVX2"),
        ("alder-lake", "avx2", "AVX2_VNNI"),
        ("skylake-sp", "avx512", "AVX512_CORE"),
        ("sapphire-rapids", "avx512", "AVX10_1_512_AMX"),
        ("nehalem", "default", "SSE41"),
        ("a76", "default", "ASIMD"),
        ("x2", "default", "SVE"),
        ("mac", "default", "unknown"),
    ],
)
def test_what_engines_use(cpu, torch, onednn):
    own = best(CPUS[cpu])
    assert engines(CPUS[cpu], {}) == {"torch": torch, "onednn": onednn, "onnxruntime": own, "xnnpack": own}


@pytest.mark.parametrize("name", ONEDNN)
@pytest.mark.parametrize(
    ("word", "capped"),  # as oneDNN 3.12 itself said on a Sapphire Rapids
    [
        ("SSE41", "SSE41"),
        ("AVX", "AVX"),
        ("avx2", "AVX2"),
        ("AVX2_VNNI_2", "AVX2_VNNI"),
        ("AVX512_CORE", "AVX512_CORE"),
        ("AVX512_CORE_VNNI", "AVX512_CORE_VNNI"),
        ("AVX512_CORE_BF16", "AVX512_CORE_BF16"),
        ("AVX512_CORE_FP16", "AVX10_1_512"),
        ("AVX10_2_512", "AVX10_1_512"),
        ("AVX10_2", "AVX10_1_512"),
        ("AVX10_1_512_AMX_FP16", "AVX10_1_512_AMX"),
        ("DEFAULT", "AVX10_1_512_AMX"),
    ],
)
def test_onednn_is_capped(name, word, capped):
    check_environment({name: word}, "x86_64")
    found = engines(CPUS["sapphire-rapids"], {name: word})
    assert (found["onednn"], found["onnxruntime"], found["torch"]) == (capped, "avx512-amx", "avx512")


def test_which_cap_counts():
    def cap(new: str, old: str) -> str:
        return engines(CPUS["sapphire-rapids"], dict(zip(ONEDNN, (new, old), strict=True)))["onednn"]

    assert cap("AVX", "AVX2") == "AVX"
    assert cap("", "AVX2") == "AVX2"
    assert engines(CPUS["alder-lake"], {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"})["onednn"] == "AVX2"  # which has no VNNI


@pytest.mark.parametrize("word", ["default", "avx2", "avx512"])
def test_torch_does_as_it_is_told(word):
    check_environment({"ATEN_CPU_CAPABILITY": word}, "x86_64")
    assert engines(CPUS["zen3"], {"ATEN_CPU_CAPABILITY": word})["torch"] == word


@pytest.mark.parametrize("name", ONEDNN)
@pytest.mark.parametrize("word", ["nonsense", "ALL", " AVX2", " ", "AVX512"])
def test_a_word_that_onednn_ignores_is_refused(name, word):
    with pytest.raises(BadInput, match=f"^{name} {word!r}: must be one of SSE41, AVX, AVX2, .*, DEFAULT; or unset it$"):
        check_environment({name: word}, "x86_64")
    check_environment({name: word}, "aarch64")
    check_environment({name: ""}, "x86_64")


@pytest.mark.parametrize("word", ["nonsense", "AVX2", "avx"])
def test_a_word_that_torch_ignores_is_refused(word):
    with pytest.raises(
        BadInput, match=f"^ATEN_CPU_CAPABILITY {word!r}: must be one of default, avx2, avx512, in lower"
    ):
        check_environment({"ATEN_CPU_CAPABILITY": word}, "x86_64")
    check_environment({"ATEN_CPU_CAPABILITY": "sve256"}, "aarch64")
    check_environment({"ATEN_CPU_CAPABILITY": ""}, "x86_64")


@pytest.mark.parametrize("threads", ["0", "-1", "abc", "1.5", "2,0", "2,", "0x2", "99999999999999999999", "٢"])
def test_threads_that_libgomp_ignores_are_refused(threads):
    with pytest.raises(
        BadInput, match=f"^OMP_NUM_THREADS {threads!r}: must be a whole number of at least 1, or several"
    ):
        check_environment({"OMP_NUM_THREADS": threads}, "aarch64")


@pytest.mark.parametrize("threads", ["", "1", "64", "2,1", " 2 ", "2 ,1", "+2", "9999999999"])
def test_threads_that_libgomp_takes(threads):
    check_environment({"OMP_NUM_THREADS": threads})


def test_the_command_refuses_before_it_starts(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    tprune("analyse", "no model").check_failed(2, "OMP_NUM_THREADS '0': must be a whole number of at least 1")
    hazards = tprune("doctor", "--json").json["machine"]["hazards"]
    assert hazards[0].startswith("every other command refuses to start: OMP_NUM_THREADS '0': must be a whole number")


def test_the_refusal_is_the_only_line_and_no_engine_was_loaded():
    code = (
        "import os, sys; os.environ['OMP_NUM_THREADS'] = 'abc'\nfrom tprune.cli.main import main\n"
        "try: main()\nfinally: assert not {'torch', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    process = start("verify", "nowhere", code=code)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err.startswith("tprune: OMP_NUM_THREADS 'abc'") and err.count("\n") == 1


@pytest.mark.parametrize("cpu", ["sapphire-rapids", "nehalem", "a76", "x2", "mac", "other"])
def test_no_hazard(cpu, two_cpus):
    assert hazards(CPUS[cpu], {"OMP_NUM_THREADS": "2", "ONEDNN_MAX_CPU_ISA": "DEFAULT"}) == []


def test_hazards_of_processors(two_cpus):
    saturates, writes = hazards(CPUS["zen3"], {})
    assert saturates == (
        "int8 products saturate at 16 bits here (avx2, no VNNI): ONNX artefacts exported with --target-cpu vnni give "
        "different translations; the default --target-cpu all is exact"
    )
    assert writes.startswith("oneDNN's AVX2 kernel for strided 1x1 convolutions writes past its buffer")
    assert hazards(CPUS["alder-lake"], {}) == [writes]
    assert [said.split(":")[0] for said in hazards(CPUS["skylake-sp"], {})] == [
        "int8 products saturate at 16 bits here (avx512, no VNNI)"
    ]


def test_hazards_of_variables(two_cpus):
    found = hazards(CPUS["sapphire-rapids"], {"ONEDNN_MAX_CPU_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2"})
    assert found[0].startswith("oneDNN's AVX2 kernel")
    assert found[1:] == [
        "ONEDNN_MAX_CPU_ISA=avx2 caps oneDNN: AVX2 instead of AVX10_1_512_AMX",
        "ATEN_CPU_CAPABILITY=avx2 caps torch: avx2 instead of avx512",
    ]
    assert hazards(CPUS["nehalem"], {"ATEN_CPU_CAPABILITY": "avx2"}) == [
        "ATEN_CPU_CAPABILITY=avx2 selects avx2, which this processor does not have: "
        "torch will crash with an illegal instruction"
    ]
    for threads in ("64", "64,1", " 3"):
        (said,) = hazards(CPUS["a76"], {"OMP_NUM_THREADS": threads})
        assert said.endswith("asks for more threads than the 2 CPUs that this process may use")


def test_the_hazard_of_a_quota(monkeypatch):
    monkeypatch.setattr(processor, "allowed_cpus", lambda: 8)
    monkeypatch.setattr(processor, "quota", lambda: 2.5)
    assert hazards(CPUS["a76"], {}) == ["a quota limits this process to 2.5 of 8 CPUs: use --threads 2"]
    assert (processor.usable_cpus(), processor.usable_threads()) == (2.5, 2)
    monkeypatch.setattr(processor, "quota", lambda: 0.5)
    assert (processor.usable_cpus(), processor.usable_threads()) == (0.5, 1)
    monkeypatch.setattr(processor, "quota", lambda: 64.0)
    assert (processor.usable_cpus(), processor.usable_threads()) == (8, 8)


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ("max 100000\n", None),
        ("50000 100000\n", 0.5),
        ("-1 100000", None),
        ("150000 100000", 1.5),
        ("", None),
        ("0 0", None),
        ("50000", None),
        ("a b", None),
    ],
)
def test_limits(told, limit):
    assert processor.limit_of(told) == limit


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_least_quota_on_the_way_up_counts(tmp_path):
    write(tmp_path / "a" / "b" / "cpu.max", "max 100000\n")
    write(tmp_path / "a" / "cpu.max", "150000 100000\n")
    write(tmp_path / "a" / "b" / "c" / "cpu.max", "800000 100000\n")
    assert processor.quota("0::/a/b/c\n", tmp_path) == 1.5
    assert processor.quota("0::/elsewhere\n", tmp_path) is None
    write(tmp_path / "cpu.max", "50000 100000\n")  # inside a container, whose own path is not below its root
    assert processor.quota("0::/docker/0123\n", tmp_path) == 0.5
    assert processor.quota("0::/../other\n", tmp_path) == 0.5


def test_quotas_of_version_1(tmp_path):
    own = "5:cpuset:/pod\n4:cpu,cpuacct:/pod/one\n1:name=systemd:/\n0::/\n"
    write(tmp_path / "cpuset" / "pod" / "cpu.cfs_quota_us", "1000\n")  # not a controller of time
    write(tmp_path / "cpu,cpuacct" / "pod" / "one" / "cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu,cpuacct" / "pod" / "one" / "cpu.cfs_period_us", "100000\n")
    assert processor.quota(own, tmp_path) is None
    write(tmp_path / "cpu,cpuacct" / "pod" / "cpu.cfs_quota_us", "250000\n")
    write(tmp_path / "cpu,cpuacct" / "pod" / "cpu.cfs_period_us", "100000\n")
    assert processor.quota(own, tmp_path) == 2.5


@pytest.mark.parametrize("own", ["", "nonsense", "0:", "0::", "0::relative", "::::"])
def test_groups_that_are_not_told(own, tmp_path):
    assert processor.quota(own, tmp_path) is None


def test_this_process_may_use_a_cpu():
    assert 0 < processor.usable_cpus() <= (os.cpu_count() or 1)
    assert 1 <= processor.usable_threads() <= (os.cpu_count() or 1)
    if sys.platform != "linux":
        pytest.skip("the flags of the processor are read on Linux alone")
    assert best(processor.here()) != "unknown"

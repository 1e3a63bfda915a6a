"""The places in ONNX Runtime's table of functions that the runner relies on, against ONNX Runtime's own header."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tprune.bench.runner.contract import SOURCE

PLACES = ("/usr/include", "/usr/include/onnxruntime", "/usr/local/include", "/usr/local/include/onnxruntime")
# A function is declared by one of these macros, or as a plain pointer; each takes one place.
DECLARED = re.compile(
    r"ORT_API2_STATUS\(\s*(\w+)|ORT_CLASS_RELEASE2?\(\s*(\w+)|\(\s*(?:ORT_API_CALL\s*)?\*\s*(\w+)\s*\)\s*\("
)


def declared(header: str) -> list[str]:
    """Return the members of `struct OrtApi`, in order."""
    body = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.DOTALL)
    body = body[body.index("struct OrtApi {") :]
    body = body[: body.index("\n};")]
    return [status or (f"Release{freed}" if freed else pointer) for status, freed, pointer in DECLARED.findall(body)]


def used() -> list[tuple[str, int]]:
    text = (SOURCE / "src" / "ort_abi.h").read_text(encoding="utf-8")
    return [(name, int(place)) for name, place in re.findall(r"TPRUNE_AT\((\w+), (\d+)\)", text)]


def test_every_function_has_its_place_checked() -> None:
    text = (SOURCE / "src" / "ort_abi.h").read_text(encoding="utf-8")
    table = text[text.index("struct Api {") : text.index("struct ApiBase {")]
    assert re.findall(r"\(\*(\w+)\)\(", table) == [name for name, _ in used()]


def test_members_of_a_header() -> None:
    header = """
    struct OrtApi {  /* ORT_API2_STATUS(NotThis) */
      OrtStatus*(ORT_API_CALL* CreateStatus)(OrtErrorCode code, _In_ const char* msg)NO_EXCEPTION ORT_MUST_USE_RESULT;
      OrtErrorCode(ORT_API_CALL* GetErrorCode)(_In_ const OrtStatus* status) NO_EXCEPTION;  // (*NorThis)(
      ORT_API2_STATUS(CreateEnv, OrtLoggingLevel level, _In_ const char* id, _Outptr_ OrtEnv** out);
      ORT_CLASS_RELEASE(Env);
      void(ORT_API_CALL* SetThis)(void);
};
    """
    assert declared(header) == ["CreateStatus", "GetErrorCode", "CreateEnv", "ReleaseEnv", "SetThis"]


def test_places_are_those_of_the_header() -> None:
    given = os.environ.get("TPRUNE_ORT_HEADER")
    headers = [Path(given)] if given else [Path(place) / "onnxruntime_c_api.h" for place in PLACES]
    header = next((path for path in headers if path.is_file()), None)
    if header is None:
        pytest.skip("no onnxruntime_c_api.h here (wheels have none); name one in TPRUNE_ORT_HEADER")
    members = declared(header.read_text(encoding="utf-8"))
    assert [(name, members.index(name)) for name, _ in used()] == used()

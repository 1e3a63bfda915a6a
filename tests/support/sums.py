"""A program of its own process: run ONNX files in ONNX Runtime alone (no torch), also in an emulator.

python tests/support/sums.py FOLDER      FOLDER/NAME.onnx of one input, FOLDER/NAME.npy -> FOLDER/NAME.out.npy
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.load(path.with_suffix(".npy"))})
    np.save(path.with_suffix(".out.npy"), found)

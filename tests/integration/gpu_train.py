"""recording_train.py with the configuration of a GPU on a CPU: fp16 with loss scaling, and several passes per batch.

DeepSpeed rejects fp16 on a CPU, and train.py replaces it by float32 there; both are patched.
"""

import os
import runpy
import sys

os.environ["DS_ACCELERATOR"] = "cpu"
sys.path.insert(0, "")

from deepspeed.accelerator import get_accelerator

from model.bert import length_cut
from model.training import train

read_ds_config = train.read_ds_config
train.read_ds_config = lambda path, _cuda: read_ds_config(path, True)
type(get_accelerator()).is_fp16_supported = lambda _: True
length_cut.PASS_TOKENS, length_cut.ROW_STEP, length_cut.MASK_COST["cpu"] = 0, 4, 1.15
runpy.run_path("recording_train.py", run_name="__main__")

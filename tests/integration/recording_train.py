"""train.py that records the promoters of each rank, and triggers an event before one step.

python recording_train.py [arguments of train.py]; in the environment, at EPOCH:STEP: STOP_AT sends SIGTERM to rank 0,
SPOIL_AT writes over the shards that are trained on. LANE_ROWS: least promoters per lane, so that few rows have lanes.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

sys.path.insert(0, "")

from pipeline.stream import shuffle
from pipeline.stream.stream import ShardStream

epoch_of_stream = ShardStream.epoch
rank = os.environ.get("RANK", "0")


def recorded(self, epoch, consumed=0):
    for step in epoch_of_stream(self, epoch, consumed):
        if self.split == "finetune/train":
            ids = [int(i) for batch in step.micro_batches for i, w in zip(batch.id, batch.weight, strict=True) if w]
            with Path(f"trained-on-{rank}.jsonl").open("a") as file:
                file.write(json.dumps([epoch, step.number, ids]) + "\n")
            if f"{epoch}:{step.number}" == os.environ.get("SPOIL_AT"):
                for shard in Path("shards").glob("k3/finetune/train-*.tar"):
                    shard.write_bytes(bytes(shard.stat().st_size))
            if f"{epoch}:{step.number}" == os.environ.get("STOP_AT") and rank == "0":
                os.kill(os.getpid(), signal.SIGTERM)
        yield step


ShardStream.epoch = recorded
shuffle.LANE_ROWS = int(os.environ.get("LANE_ROWS", shuffle.LANE_ROWS))
runpy.run_path("train.py", run_name="__main__")

"""Before the first step: do all ranks have the same shards, configuration and software? If not, which host differs?"""

import socket
from collections.abc import Mapping
from typing import Any

from model.config import Config
from model.distributed.process_group import all_gather
from model.runs.fingerprint import differences, explained, facts_of
from pipeline.errors import UserError
from pipeline.shards.index import Index


def agreed_index(config: Config, ds_config: Mapping[str, Any], index: Index | None) -> Index:
    """This host's shards, when all ranks have the same ones, and the same configuration and software.

    All ranks call this, each with the configuration that it was given and the index that it has found. Raises
    UserError on every rank, with every difference.
    """
    found = differences(all_gather((socket.gethostname(), facts_of(config, ds_config, index))))
    if found:
        raise UserError(explained(found))
    assert index is not None  # as on rank 0, which has checked its own
    return index

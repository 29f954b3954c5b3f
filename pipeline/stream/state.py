"""Where a stream stands, as a small JSON: the same on any number of ranks, micro-batches and threads."""

import json
from dataclasses import asdict, dataclass

from pipeline.errors import UserError


@dataclass(frozen=True)
class StreamState:
    """shard_key: of the index; split: such as finetune/train; epoch, consumed: promoters of it taken, over all ranks;
    seed, reverse_complement: what else decides the batches."""

    shard_key: str
    split: str
    seed: int
    reverse_complement: bool
    epoch: int = 0
    consumed: int = 0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "StreamState":
        """Raises UserError where the text is no such state."""
        try:
            state = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise UserError(f"not the state of a stream: {error}; expected what to_json() wrote") from None
        for name, kind in cls.__annotations__.items():
            if type(getattr(state, name)) is not kind:
                raise UserError(f"not the state of a stream: {name} is {getattr(state, name)!r}, expected {kind}")
        return state

    def check(self, now: "StreamState") -> None:
        """Raise UserError where this state is of another stream than `now`: going on would repeat or miss promoters."""
        for name in ("shard_key", "split", "seed", "reverse_complement"):
            was, is_now = getattr(self, name), getattr(now, name)
            if was != is_now:
                raise UserError(
                    f"the state is of a stream with {name} {was}, this one has {is_now}: go on with the same "
                    "shards and settings, or begin anew"
                )

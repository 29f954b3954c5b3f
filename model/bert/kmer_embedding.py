"""k-mer embeddings composed from their bases by one small network that all k-mers share.

A table gives each k-mer a vector of its own, so nothing learned about one k-mer helps its neighbours. Here it is

    z = shift + sum over positions p of w[p, base at p]       a convolution of width k over one-hot bases
    vector = SCALE * projection(gelu(z))

with w standardized per channel: mean 0 over the bases of a position, variance 1 over the k-mers of the training split.
This is a batch normalization whose statistics are exact functions of w and of base counts, which are constant. So a
vector depends on its k-mer alone. N adds nothing, as an average base does. Special tokens have vectors of their own.

After training the vectors of all ids are written as the embedding table of a stock model. Its folder also holds the
weights of the network, COMPOSITION, from which fine-tuning starts.

Gradients reach the network through the tokens of the batch. In pretraining they also come through the decoder, whose
weights are the vectors of all ids, computed once per micro-batch.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.tokens.kmers import SPECIALS, vocabulary_size

COMPOSITION = "kmer_embedding.safetensors"
"""File of the network's weights, beside model.safetensors. Stock transformers ignores it."""
CHANNELS = 2
"""Channels of the network, as a multiple of the width of the vectors."""
SCALE = 0.05
"""Scale of the vectors: about 0.02 at the start, as in a new table."""
BASES, DIGITS = 4, 5
"""Bases with a vector, and digits of an id in base 5: N is the fifth."""
BLOCK_IDS = 65_536
"""Ids per block of a table that is written: bounds the memory."""

Weights = dict[str, torch.Tensor]


class ComposedKmerEmbedding(nn.Module):
    """Embedding of k-mer ids that replaces nn.Embedding. width: of the vectors.

    `pairs`: int64 (k * BASES + 1, k * BASES + 1), counts of k-mers that have two bases at their positions; the last row
    and column stand for any k-mer. Integers keep their values when a model is cast to half precision.
    """

    pairs: torch.Tensor

    def __init__(self, k: int, width: int) -> None:
        super().__init__()
        channels = CHANNELS * width
        self.k = k
        self.register_buffer("pairs", uniform_pairs(k))
        self.specials = nn.Parameter(torch.randn(len(SPECIALS), width) * 0.02)
        self.bases = nn.Parameter(torch.empty(k, BASES, channels).uniform_(-1, 1) / (BASES * k) ** 0.5)
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.projection = nn.Linear(channels, width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Compute the vectors of ids: (..., width), in the dtype of the weights. ids: (...) int64.

        Only the given ids are computed, without a table of all k-mers and without waiting for the device.
        """
        device, dtype = ids.device, self.bases.dtype
        z = F.linear(_one_hot(ids, self.k).to(dtype), self._standardized().to(dtype), self.shift)
        composed = self.projection(F.gelu(z)) * SCALE
        which = (ids[..., None] == torch.arange(len(SPECIALS), device=device)).to(dtype)
        return torch.where(ids[..., None] < len(SPECIALS), which @ self.specials, composed)

    def _standardized(self) -> torch.Tensor:
        """Standardize w over the counted k-mers, times the gain: float32 (channels, k * BASES)."""
        pairs = self.pairs.float()
        moments, counts = pairs[:-1, :-1] / pairs[-1, -1], pairs[-1, :-1].view(self.k, BASES, 1)
        w = self.bases.float()
        w = (w - (w * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True)).flatten(0, 1)
        deviation = ((w * (moments @ w)).sum(0) + 1e-5).sqrt()
        return (w * (self.gain.float() / deviation)).T

    def all_vectors(self) -> torch.Tensor:
        """Compute the vectors of all ids, as the rows of a table: (vocabulary, width)."""
        vectors: torch.Tensor = self(torch.arange(vocabulary_size(self.k), device=self.bases.device))
        return vectors


def count_pairs(ids: torch.Tensor, lengths: torch.Tensor, k: int) -> torch.Tensor:
    """Count the pairs of bases in complete k-mers, see ComposedKmerEmbedding: int64 (k * BASES + 1, k * BASES + 1).

    ids: (rows, width) ids, one per base; lengths: (rows,) bases.
    """
    complete = torch.arange(ids.shape[1], device=ids.device) <= lengths[:, None] - k
    bases = F.pad(_one_hot(ids.long(), k).float(), (0, 1), value=1.0) * complete[..., None]
    flat = bases.flatten(0, 1)
    return (flat.T @ flat).long()  # exact: float32 holds all integers up to 2^24


def read_bases(ids: torch.Tensor, k: int) -> torch.Tensor:
    """Read the bases of k-mer ids (...): int64 (..., k), N is BASES. Undefined for special tokens."""
    powers = DIGITS ** torch.arange(k - 1, -1, -1, device=ids.device)
    return (ids[..., None] - len(SPECIALS)) // powers % DIGITS


def _one_hot(ids: torch.Tensor, k: int) -> torch.Tensor:
    """Encode k-mer ids (...) by their bases: bool (..., k * BASES). N has no base."""
    return (read_bases(ids, k)[..., None] == torch.arange(BASES, device=ids.device)).flatten(-2)


def uniform_pairs(k: int) -> torch.Tensor:
    """Make the counts of random k-mers, in which all bases are equally frequent."""
    position = torch.arange(k * BASES) // BASES
    pairs = torch.ones(k * BASES + 1, k * BASES + 1, dtype=torch.long)
    pairs[:-1, :-1] = torch.where(position[:, None] == position, BASES * torch.eye(k * BASES), 1).long()
    pairs[-1] = pairs[:, -1] = BASES
    pairs[-1, -1] = BASES**2
    return pairs


class TiedDecoder(nn.Module):
    """Output layer of a masked language model whose weights are the vectors of all ids. bias: (vocabulary,)."""

    def __init__(self, embedding: ComposedKmerEmbedding, bias: nn.Parameter) -> None:
        super().__init__()
        self.embedding = embedding
        self.bias = bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the logits of all ids: (rows, vocabulary). hidden: (rows, width)."""
        return F.linear(hidden, self.embedding.all_vectors(), self.bias)


def compose_embeddings(model: Any, k: int, start: Path | None) -> None:
    """Replace the embedding table of a stock model, and the decoder that is tied to it, by a composed embedding.

    start: model folder that holds the weights of the network; None: random weights. Raises UserError if the folder
    does not hold them.
    """
    embedding = ComposedKmerEmbedding(k, model.config.hidden_size)
    if start is not None:
        embedding.load_state_dict(read_composition(start, k, model.config.hidden_size))
    model.set_input_embeddings(embedding)
    decoder = model.get_output_embeddings()
    if decoder is not None:
        model.set_output_embeddings(TiedDecoder(embedding, decoder.bias))


def read_composition(folder: Path, k: int, width: int) -> Weights:
    """Read the weights of the network from a model folder.

    Raises UserError if the file is missing, corrupt, or of another size.
    """
    path = folder / COMPOSITION
    if not path.is_file():
        raise UserError(
            f"{folder}: its k-mer embedding is a table; model.kmer_embedding=composed expected {COMPOSITION} there; "
            "fix: start from a run with model.kmer_embedding=composed"
        )
    try:
        weights: Weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read: {error}; fix: restore the file that train.py wrote") from None
    shapes = {name: value.shape for name, value in weights.items()}
    expected = {name: value.shape for name, value in _make_empty(k, width).state_dict().items()}
    if shapes != expected:
        raise UserError(
            f"{path}: not the k-mer network of this model; expected {_describe(expected)}, got {_describe(shapes)}; "
            "fix: use the same shards.k and model.hidden in both runs"
        )
    return weights


def _make_empty(k: int, width: int) -> ComposedKmerEmbedding:
    """Make an embedding without weights, and without drawing random numbers."""
    with torch.device("meta"):
        return ComposedKmerEmbedding(k, width)


def find_composed_embedding(model: nn.Module) -> ComposedKmerEmbedding | None:
    """Find the composed embedding of a model or task. Returns None if it has a table."""
    return next((part for part in model.modules() if isinstance(part, ComposedKmerEmbedding)), None)


def _describe(shapes: dict[str, torch.Size]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items()))


def split_composition(model: nn.Module, weights: Weights) -> tuple[Weights, Weights]:
    """Split the weights of a model, by name, into those of the stock model and those of its k-mer network.

    The stock weights contain the table of all vectors, in float32. The second part is empty without a network.
    """
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, ComposedKmerEmbedding)]
    if not found:
        return weights, {}
    prefix, trained = found[0][0] + ".", found[0][1]
    network = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    network["pairs"] = trained.pairs.cpu()
    stock = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    embedding = _make_empty(trained.k, trained.projection.out_features)
    embedding.load_state_dict(network, assign=True)
    with torch.inference_mode():
        ids = torch.arange(vocabulary_size(trained.k))
        blocks = [embedding(ids[first : first + BLOCK_IDS]) for first in range(0, len(ids), BLOCK_IDS)]
        stock[f"{prefix}weight"] = torch.cat(blocks)
    return stock, network


def write_composition(folder: Path, network: Weights) -> None:
    """Write the weights of a k-mer network, if there are any, into a model folder."""
    if network:
        save_file({name: value.contiguous() for name, value in network.items()}, folder / COMPOSITION)

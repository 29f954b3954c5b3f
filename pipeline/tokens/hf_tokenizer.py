"""Hugging Face tokenizer of the k-mer vocabulary, for users without this package.

Its input is a promoter with adapters, as in the files of the DREAM challenge, or an extended sequence. It replaces
adapters by flanks, cuts the sequence into k-mers and adds [CLS] and [SEP]. The k-mers are those of reading frame 0, or
the overlapping ones at all bases. For frame f, pass the extended sequence without its first f bases. Lower case is
converted to upper case. A k-mer with a letter other than ACGTN becomes [UNK]. An incomplete last k-mer is dropped.
"""

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pipeline.config.schema import Assay
from pipeline.tokens.kmers import ALPHABET, CLS, SEP, vocabulary

OTHER = "X"
"""Letter that stands for all letters outside the alphabet, before they become [UNK]."""


def build_tokenizer(assay: Assay, k: int, overlapping: bool = False) -> Tokenizer:
    """Build the `tokenizers` pipeline of an assay and k.

    overlapping: the tokens are the k-mers at all bases. The input may also be these k-mers, separated by spaces.
    """
    tokens = {token: i for i, token in enumerate(vocabulary(k))}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    steps: list[normalizers.Normalizer] = [normalizers.Replace(base.lower(), base) for base in ALPHABET]
    if overlapping:
        steps.extend(_join_kmers(k))
    if assay.left_adapter:
        steps.append(normalizers.Replace(Regex(f"^{assay.left_adapter}"), assay.left_flank))
    if assay.right_adapter:
        steps.append(normalizers.Replace(Regex(f"{assay.right_adapter}$"), assay.right_flank))
    if overlapping:
        steps.extend(_spell_kmers(k))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f".{{{k}}}"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def _join_kmers(k: int) -> Iterator[normalizers.Normalizer]:
    """Make the steps that join overlapping k-mers, separated by spaces, into their sequence."""
    base = f"[{ALPHABET}{OTHER}]"
    yield normalizers.Replace(Regex(rf"[^{ALPHABET}\s]"), OTHER)
    shared = rf"(?<=({base}{{{k - 1}}}))\s+\1(?={base})" if k > 1 else rf"(?<={base})\s+(?={base})"
    yield normalizers.Replace(Regex(shared), "")


def _spell_kmers(k: int) -> Iterator[normalizers.Normalizer]:
    """Make the steps that replace each base by the k-mer that begins there, and drop incomplete k-mers.

    A step can only insert constant letters. So step i appends one letter to each base, in lower case: the base that is
    i places to its right. That is the letter which the base next to it received in the step before. ACGT becomes
    AcCgGtT, then AcgCgtGtT.
    """
    letters = ALPHABET + OTHER
    base, copy = f"[{letters}]", f"[{letters.lower()}]"
    for copies in range(k - 1):
        for letter in letters:
            following = letter if copies == 0 else f"{base}{copy}{{{copies - 1}}}{letter.lower()}"
            yield normalizers.Replace(Regex(f"(?<={base}{copy}{{{copies}}})(?={following})"), letter.lower())
    if k > 1:
        yield normalizers.Replace(Regex(f"{base}{copy}{{0,{k - 2}}}(?!{copy})"), "")
    yield normalizers.Replace(Regex(r"\s+"), "")
    for letter in letters:
        yield normalizers.Replace(letter.lower(), letter)

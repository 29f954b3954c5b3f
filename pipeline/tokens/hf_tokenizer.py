"""Hugging Face tokenizer of the k-mer vocabulary, for users without this package.

Its input is a promoter with adapters, as in the files of the DREAM challenge, or an extended sequence. It replaces
adapters by flanks, cuts reading frame 0 into k-mers and adds [CLS] and [SEP]. For frame f, pass the extended sequence
without its first f bases. Lower case is converted to upper case. A k-mer with a letter other than ACGTN becomes [UNK].
An incomplete last k-mer is dropped.
"""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pipeline.config.schema import Assay
from pipeline.tokens.kmers import CLS, SEP, vocabulary


def build_tokenizer(assay: Assay, k: int, overlapping: bool = False) -> Tokenizer:
    """Build the `tokenizers` pipeline of an assay and k.

    overlapping: the input is k-mers separated by spaces, because `tokenizers` cannot cut overlapping ones.
    """
    tokens = {token: i for i, token in enumerate(vocabulary(k))}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    steps: list[normalizers.Normalizer] = [normalizers.Replace(base.lower(), base) for base in "ACGTN"]
    if assay.left_adapter and not overlapping:
        steps.append(normalizers.Replace(Regex(f"^{assay.left_adapter}"), assay.left_flank))
    if assay.right_adapter and not overlapping:
        steps.append(normalizers.Replace(Regex(f"{assay.right_adapter}$"), assay.right_flank))
    tokenizer.normalizer = normalizers.Sequence(steps)
    whole = pre_tokenizers.Split(Regex(f".{{{k}}}"), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if overlapping else whole
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer

"""A stock Hugging Face tokenizer of the vocabulary, for users without this package.

Its input is a promoter with adapters, as in the challenge's files, or an extended sequence. It replaces adapters by
flanks, cuts reading frame 0 into k-mers and adds [CLS] and [SEP]. Frame f is the extended sequence from base f on.
Lower case is read as upper case; a letter that is no base becomes [UNK]; an incomplete last k-mer is dropped.
"""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pipeline.config.schema import Assay
from pipeline.tokens.kmers import CLS, SEP, vocabulary


def build_tokenizer(assay: Assay, k: int, overlapping: bool = False) -> Tokenizer:
    """Build the `tokenizers` pipeline of an assay and k.

    overlapping: its input is k-mers separated by spaces, as the pipeline cannot cut overlapping ones.
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

"""The vocabulary as a stock Hugging Face tokenizer, for users without this package.

Give it a promoter as the challenge writes it (adapters included) or an extended sequence: it sets the flanks
on, cuts reading frame 0 into k-mers and frames them with [CLS] and [SEP]. Frame f is the extended sequence
from its f-th base on. Bases in lower case are read as upper case; a letter that is no base becomes [UNK];
the last bases that make no whole k-mer are left out.
"""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pipeline.config.schema import Assay
from pipeline.tokens.kmers import CLS, SEP, vocabulary


def build_tokenizer(assay: Assay, k: int, overlapping: bool = False) -> Tokenizer:
    """The `tokenizers` pipeline of an assay and k. overlapping: it takes k-mers with spaces between, as it cannot
    cut overlapping ones."""
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

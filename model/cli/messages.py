"""What `promoter-bert score` says."""

from model.scoring.dream import PAIRED, WEIGHTS, DreamScore


def score_lines(score: DreamScore) -> list[str]:
    """A table of the subsets, and both scores."""
    lines = [f"{'subset':20}{'weight':>6}{'rows':>15}  {'Pearson (95 %)':29}Spearman (95 %)"]
    for name, part in score.subsets.items():
        unit = f"{part.rows:,}{' pairs' if name in PAIRED else ''}"
        lines.append(
            f"{name.replace('_', ' '):20}{WEIGHTS[name]:6g}{unit:>15}"
            f"  {_said(part.pearson, part.pearson_interval):29}{_said(part.spearman, part.spearman_interval)}"
        )
    if score.pearson_score is None or score.spearman_score is None:
        lines.append(f"no scores: no subset file of {', '.join(score.missing)}")
    else:
        lines.append(f"Pearson Score {score.pearson_score:.4f}, Spearman Score {score.spearman_score:.4f}")
        lines.append("(weighted means, as the challenge has them: of r squared, and of Spearman's rho as it is)")
        negative = [name.replace("_", " ") for name, part in score.subsets.items() if part.pearson < 0]
        if negative:
            lines.append(f"note: Pearson is negative for {', '.join(negative)}, which its square hides")
    return lines


def _said(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"

"""How far a student is from its teacher, in torch. Import it when needed.

Source:
    Soft targets at a temperature: arXiv:1503.02531. Hints: FitNets, arXiv:1412.6550. Attention
    maps of convolutions: arXiv:1612.03928; of transformers: TinyBERT, arXiv:1909.10351.
"""

import torch
from torch import Tensor
from torch.nn import functional

from onhand.core.errors import InputError

__all__ = ["answer_loss", "attention_loss", "feature_loss", "label_loss"]

_TINY = 1e-12


def answer_loss(kind: str, ours: Tensor, theirs: Tensor, *, temperature: float) -> Tensor:
    """Return the distance of one answer.

    Args:
        kind: see `Answer`.
        ours: the student's, (B, ...).
        theirs: the teacher's, the same shape.
        temperature: of "classes" and "independent", above 0; others have none.

    Returns:
        (): for "classes" tau^2 KL(theirs, ours) in nat; for "independent" the same of each class,
        in the mean; for "vector" 1 - cosine; for "values" the squared error over the teacher's
        mean square.
    """
    ours, theirs = ours.float(), theirs.float()
    if kind == "classes":
        wanted = (_rows(theirs) / temperature).log_softmax(-1)
        given = (_rows(ours) / temperature).log_softmax(-1)
        return temperature**2 * (wanted.exp() * (wanted - given)).sum(-1).mean()
    if kind == "independent":
        wanted = (theirs / temperature).sigmoid()
        cross = functional.binary_cross_entropy_with_logits(ours / temperature, wanted)
        own = functional.binary_cross_entropy_with_logits(theirs / temperature, wanted)
        return temperature**2 * (cross - own)
    if kind == "vector":
        return (1 - functional.cosine_similarity(ours, theirs, dim=-1)).mean()
    return _relative_error(ours, theirs)


def label_loss(ours: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy with known classes.

    Args:
        ours: scores, (B, C).
        labels: (B,) int64.

    Returns:
        (), in nat.

    Raises:
        InputError: if a label is no class of the network.
    """
    rows = _rows(ours.float())
    if rows.ndim != 2 or int(labels.max()) >= rows.shape[-1] or int(labels.min()) < 0:
        raise InputError(
            f"a label is {int(labels.max())}, the network's scores are {tuple(rows.shape[1:])}; "
            "leave labels out with alpha = 0"
        )
    return functional.cross_entropy(rows, labels)


def feature_loss(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the squared error of a value inside over the teacher's mean square."""
    return _relative_error(ours.float(), theirs.float())


def attention_loss(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the distance of where two networks look.

    Args:
        ours: (B, C, H, W), any C; or of a transformer (B, H, T, T), any H.
        theirs: the same but for the second size.

    Returns:
        (): of maps over places, summed over the second size and of length 1, the squared error.
    """
    maps = [x.float().square().mean(1).flatten(1) for x in (ours, theirs)]
    first, second = (functional.normalize(x, dim=-1) for x in maps)
    return (first - second).square().sum(-1).mean()


def _relative_error(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean() / (theirs.square().mean() + _TINY)


def _rows(scores: Tensor) -> Tensor:
    # (B, C, 1, 1) is (B, C) as well.
    places = scores.shape[2:]
    is_spread = scores.ndim > 2 and torch.Size(places).numel() == 1
    return scores.flatten(1) if is_spread else scores

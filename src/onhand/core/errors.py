"""Every error that onhand raises on purpose.

OnhandError
    InputError            what the caller gave cannot be accepted
        RecipeError       a recipe file, or a step in it
        ShapeError        an array's shape or dtype
        SourceError       a source model is of an unknown family, incomplete or damaged
        ContextOverflow   a prompt is longer than the model's context
    BundleError           a bundle is not what its manifest says
        BundleCorrupt     a file is missing, changed, or reaches outside the bundle
        BundleTooNew      written in a later format than this reader knows
        BundleUntrusted   not signed, or not by a key that is trusted here, or an older release
    BudgetExceeded        a figure is over its ceiling, or was not measured
    EngineError           an inference engine failed; `__cause__` is its own error
        EngineUnavailable not installed, or cannot run this bundle here
        EngineBusy        as many requests wait as may; ask again when one has ended
    ResourceError         the machine lacks what the work needs: disk, memory, network
    VaultError            the vault's keys are locked, damaged, gone, or not for this file
        SealBroken        what was sealed is changed, cut short, or belongs to another place
"""

__all__ = [
    "BudgetExceeded",
    "BundleCorrupt",
    "BundleError",
    "BundleTooNew",
    "BundleUntrusted",
    "ContextOverflow",
    "EngineBusy",
    "EngineError",
    "EngineUnavailable",
    "InputError",
    "OnhandError",
    "RecipeError",
    "ResourceError",
    "SealBroken",
    "ShapeError",
    "SourceError",
    "VaultError",
]


_MOST_LETTERS = 2000


class OnhandError(Exception):
    """Base of every error raised on purpose."""

    def __str__(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self,
    ) -> str:
        """Return the message; what came from outside makes none longer than a person reads."""
        text = super().__str__()
        if len(text) <= _MOST_LETTERS:
            return text
        return f"{text[: _MOST_LETTERS // 2]} [...] {text[-_MOST_LETTERS // 4 :]}"


class InputError(OnhandError):
    """What the caller gave cannot be accepted."""


class RecipeError(InputError):
    """A recipe file, or a step in it, is wrong."""


class ShapeError(InputError):
    """An array has the wrong shape or dtype."""


class SourceError(InputError):
    """A source model is of an unknown family, incomplete or damaged."""


class ContextOverflow(InputError):
    """A prompt is longer than the model's context."""


class BundleError(OnhandError):
    """A bundle is not what its manifest says."""


class BundleCorrupt(BundleError):
    """A file is missing, changed, or reaches outside the bundle."""


class BundleTooNew(BundleError):
    """A bundle was written in a later format than this reader knows."""


class BundleUntrusted(BundleError):
    """A bundle is not signed, not by a key that is trusted here, or an older release."""


class BudgetExceeded(OnhandError):
    """A figure is over its ceiling, or was not measured."""


class EngineError(OnhandError):
    """An inference engine failed; `__cause__` is its own error."""


class EngineUnavailable(EngineError):
    """An engine is not installed, or cannot run this bundle here."""


class EngineBusy(EngineError):
    """As many requests wait as may; ask again when one has ended."""


class ResourceError(OnhandError):
    """The machine lacks what the work needs: disk, memory or network."""


class VaultError(OnhandError):
    """The vault's keys are locked, damaged, gone, or not for this file."""


class SealBroken(VaultError):
    """What was sealed is changed, cut short, or belongs to another place."""

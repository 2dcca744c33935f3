"""What can be wrong with a model directory, as typed errors that name the file, the tensor, expected and found."""

from __future__ import annotations

from pathlib import Path


def describe(
    what: str, *, path: Path | None, tensor: str | None, expected: str | None, found: str | None
) -> str:
    """Return a sentence of what is wrong, where, what was expected there and what was found."""
    parts = [what if path is None else f"{path}: {what}"]
    named = {"tensor": tensor, "expected": expected, "found": found}
    parts += [f"{name} {value}" for name, value in named.items() if value is not None]
    return "; ".join(parts)


class ModelError(Exception):
    """A model directory that cannot be used. ``path`` is the file or folder at fault."""

    def __init__(
        self,
        what: str,
        *,
        path: Path,
        tensor: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        self.path = path
        self.tensor = tensor
        self.expected = expected
        self.found = found
        super().__init__(describe(what, path=path, tensor=tensor, expected=expected, found=found))


class NotAModelError(ModelError):
    """The path is no directory in diffusers' layout (no ``model_index.json``)."""


class MissingFileError(ModelError):
    """A file that the layout requires is not there."""


class PickleRefusedError(ModelError):
    """Weights exist only as a pickle, which can run code when it is read; only safetensors are read."""


class CorruptFileError(ModelError):
    """A file is there but is not what its name says (broken JSON, truncated safetensors)."""


class UnsupportedModelError(ModelError):
    """The directory is sound but describes a model that this engine does not run."""


class WrongDefaultError(ModelError):
    """``limner.json`` states a default that no request could ask for, or something that is no default."""


class MissingTensorError(ModelError):
    """The weights lack a tensor that the configuration calls for."""


class UnexpectedTensorError(ModelError):
    """The weights hold a tensor that the configuration has no place for."""


class TensorShapeError(ModelError):
    """A tensor's shape is not what the configuration calls for."""


class NotFiniteError(ModelError):
    """A tensor holds NaN or infinity."""


class AdapterChoiceError(ModelError):
    """The adapter asked for is not there, or several are and none was named."""

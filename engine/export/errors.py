"""What can be wrong with an export, as typed errors that name the file, expected and found."""

from __future__ import annotations

from engine.models.errors import ModelError


class ExportError(ModelError):
    """An export that cannot be made or cannot be used. ``path`` is the file or folder at fault."""


class NotAnExportError(ExportError):
    """The directory holds no ``manifest.json``."""


class CorruptManifestError(ExportError):
    """``manifest.json`` is there but does not say what it must."""


class ExportVersionError(ExportError):
    """The export has another format than this release reads."""


class DamagedExportError(ExportError):
    """A file of the export is missing, cut short, or not the one that the manifest describes."""


class ExportMismatchError(ExportError):
    """A sound export, but not of what was asked for."""


class GraphMismatchError(ExportError):
    """A graph's inputs or outputs are not what the manifest says."""


class GraphError(ExportError):
    """A graph could not be traced, or does not pass the ONNX checker."""


class GraphCompileError(ExportError):
    """A runtime could not compile a graph."""


class ExportFailedError(ExportError):
    """The process that was to export a model ended with an error, which is told."""


class ExportWriteError(ExportError):
    """The export could not be written: a full disk, a read-only file system, a folder of somebody else."""


class ExportLockError(ExportError):
    """Another process held the lock of this export for longer than it can take."""


class CorruptActivationsError(ExportError):
    """``activations.safetensors`` is there but does not hold ranges."""


class NotCalibratedError(ExportError):
    """int8 was asked for, and the model has no ranges of activations, or not those of its own layers."""


class CalibrationError(ExportError):
    """Calibration found ranges with which int8 is too far off to be used."""

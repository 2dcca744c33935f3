"""What can be wrong with a reference, as the caller is told it: with the field that carried it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import (
    FieldViolation,
    InternalError,
    InvalidFieldsError,
    InvalidImageError,
    OverloadedError,
    ReferenceUnknownError,
)
from server.imaging.errors import ImagingOverloaded, InvalidImage
from server.references.errors import InvalidDigest, ReferenceEncodingFailed, ReferenceNotFound

RETRY_SECONDS = 0.5
"""Told when too many pictures wait to be decoded: each takes some milliseconds."""


@contextmanager
def reference_faults(*, image_field: str = "", digest_field: str = "") -> Iterator[None]:
    """Raise what the library raises in this block as ``LimnerError`` about these fields."""
    try:
        yield
    except InvalidImage as error:
        limit = f"the limit is {error.limit}"
        raise InvalidImageError(
            FieldViolation(field=image_field, problem=error.problem, limit=limit)
        ) from error
    except InvalidDigest as error:
        limit = f"the limit is {error.limit}"
        raise InvalidFieldsError(
            [FieldViolation(field=digest_field, problem=error.problem, limit=limit)]
        ) from error
    except ReferenceNotFound as error:
        raise ReferenceUnknownError({digest_field: error.digest}) from error
    except ImagingOverloaded as error:
        raise OverloadedError(
            "pictures waiting to be decoded", limit=error.limit, retry_after=RETRY_SECONDS
        ) from error
    except ReferenceEncodingFailed as error:
        raise InternalError() from error

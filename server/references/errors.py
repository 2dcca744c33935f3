"""What can go wrong with references. ``server.errors`` maps these to gRPC, once."""

from __future__ import annotations


class ReferenceNotFound(LookupError):  # noqa: N818 - named for the reason REFERENCE_NOT_FOUND that it becomes
    """No reference with this digest is known to this tenant here. NOT_FOUND, reason REFERENCE_NOT_FOUND."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"no reference {digest} is known here; upload it again")
        self.digest = digest


class InvalidDigest(ValueError):  # noqa: N818 - named like InvalidImage
    """A digest that is none. INVALID_ARGUMENT with a violation of the field that carried it.

    Attributes:
        problem: what is wrong with it.
        limit: what a digest is.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.limit = "a SHA-256 in 64 lower-case hexadecimal digits"
        super().__init__(f"{problem} ({self.limit})")


class ReferenceEncodingFailed(RuntimeError):  # noqa: N818 - reads as the event it is
    """The image encoder could not encode this picture (``ReferenceFailed``).

    INTERNAL, for its requests alone.
    """

"""What can go wrong with pictures. ``server.errors`` maps these to gRPC, once."""

from __future__ import annotations


class InvalidImage(ValueError):  # noqa: N818 - named for the reason INVALID_IMAGE that it becomes
    """A picture that cannot be used, by its sender's fault. INVALID_ARGUMENT, reason INVALID_IMAGE.

    Attributes:
        field: the request field that carried it, such as ``portrait.reference_image``.
        problem: what is wrong with it, for a person; never part of the picture.
        limit: what would be taken instead.
    """

    def __init__(self, field: str, problem: str, limit: str) -> None:
        super().__init__(f"{field}: {problem} ({limit})")
        self.field = field
        self.problem = problem
        self.limit = limit

    def at(self, field: str) -> InvalidImage:
        """Return the same finding about another request's field."""
        return InvalidImage(field, self.problem, self.limit)


class ImagingOverloaded(RuntimeError):  # noqa: N818 - named for the reason OVERLOADED that it becomes
    """As many pictures as allowed wait for a thread. RESOURCE_EXHAUSTED, reason OVERLOADED.

    Attributes:
        limit: the number of pictures that may wait.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} pictures already wait to be decoded or encoded")
        self.limit = limit

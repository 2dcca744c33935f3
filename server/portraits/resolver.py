"""The references of one portrait, had together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from server.errors import InvalidImageError, ReferenceUnknownError
from server.portraits.portrait import Portrait, PortraitReference
from server.portraits.reference_faults import reference_faults
from server.references.library import ReferenceLibrary
from server.references.record import ResolvedReference
from server.tracing.references import reference_stage


class ReferenceResolver:
    """Resolves all references of a portrait at the same time, and tells all that is wrong with them at once."""

    def __init__(self, library: ReferenceLibrary) -> None:
        self._library = library

    async def resolve(self, portrait: Portrait, tenant: str) -> Sequence[ResolvedReference]:
        """Return the references in the portrait's order. Raises ``LimnerError``."""
        asked = portrait.references
        if len(asked) <= 1:
            return [await self._traced(reference, portrait, tenant) for reference in asked]
        # The engine encodes together what misses together.
        results = await asyncio.gather(
            *(self._traced(reference, portrait, tenant) for reference in asked), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise _joined(failures)
        return [result for result in results if isinstance(result, ResolvedReference)]

    async def _traced(
        self, reference: PortraitReference, portrait: Portrait, tenant: str
    ) -> ResolvedReference:
        with reference_stage(reference.field) as note:
            return note(await self._one(reference, portrait, tenant))

    async def _one(self, reference: PortraitReference, portrait: Portrait, tenant: str) -> ResolvedReference:
        model, adapter = portrait.model, portrait.adapter
        if reference.image:
            with reference_faults(image_field=reference.field):
                return await self._library.resolve(
                    tenant, reference.image, model=model, adapter=adapter, field=reference.field
                )
        with reference_faults(digest_field=reference.field):
            return await self._library.lookup(tenant, reference.digest, model=model, adapter=adapter)


def _joined(failures: Sequence[BaseException]) -> BaseException:
    """Return one error for all: a fault of the caller's that no upload mends goes first."""
    invalid = [
        violation for each in failures if isinstance(each, InvalidImageError) for violation in each.violations
    ]
    if invalid:
        return InvalidImageError(*invalid)
    if all(isinstance(each, ReferenceUnknownError) for each in failures):
        return ReferenceUnknownError(
            {
                field: digest
                for each in failures
                if isinstance(each, ReferenceUnknownError)
                for field, digest in each.unknown.items()
            }
        )
    return next(each for each in failures if not isinstance(each, ReferenceUnknownError))

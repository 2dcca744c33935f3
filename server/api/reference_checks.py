"""The rules for references: which pictures, how many, through which adapter, into which layers."""

from __future__ import annotations

from engine.protocol.messages import Ready
from server.api.checks import Findings, known
from server.config.options import LimitOptions
from server.portraits.portrait import PortraitReference
from server.portraits.request import PortraitRequest, ReferenceLayers, Region, RequestedReference
from server.references.digest import parse_digest
from server.references.errors import InvalidDigest

IMAGE, DIGEST, SEVERAL = "portrait.reference_image", "portrait.reference_digest", "portrait.references"


def check_digest(findings: Findings, field: str, digest: str) -> None:
    """Check the digest of a reference."""
    try:
        parse_digest(digest)
    except InvalidDigest as error:
        findings.add(field, error.problem, f"the limit is {error.limit}")


def check_image(findings: Findings, field: str, image: bytes, limits: LimitOptions) -> None:
    """Check what can be told of a picture without opening it."""
    if not image:
        findings.add(field, "is empty", f"the limit is 1 to {limits.max_image_bytes} bytes")
    elif len(image) > limits.max_image_bytes:
        findings.add(field, f"has {len(image)} bytes", f"the limit is {limits.max_image_bytes} bytes")


def check_takes_references(findings: Findings, field: str, ready: Ready) -> None:
    """Check that the model has an adapter."""
    if not ready.model.adapters:
        findings.add(field, "is set, but the model takes no references", "the limit is no reference at all")


def check_adapter(findings: Findings, field: str, adapter: str, ready: Ready) -> str:
    """Return the adapter's name, the default's for ''."""
    names = [each.name for each in ready.model.adapters]
    if adapter and adapter not in names:
        limit = f"the limit is one of {', '.join(names)}" if names else "the limit is no adapter at all"
        findings.add(field, "names no adapter of this model", limit)
    return adapter or next(iter(names), "")


def check_layers(findings: Findings, request: PortraitRequest, ready: Ready) -> ReferenceLayers:
    """Return the layers that the references act on."""
    field = "portrait.reference_layers"
    layers = known(findings, field, request.reference_layers, ReferenceLayers, ReferenceLayers.ALL)
    offered = [each for each in ReferenceLayers if each.value in ready.model.reference_layers]
    if layers not in offered:
        names = ", ".join(each.name for each in offered)
        findings.add(
            field, f"is {layers.name}, which is not known for this model", f"the limit is one of {names}"
        )
    return layers


def check_references(
    findings: Findings, request: PortraitRequest, limits: LimitOptions, ready: Ready
) -> tuple[PortraitReference, ...]:
    """Return the references, however the request names them."""
    references: list[PortraitReference] = []
    given = [
        field
        for field, value in (
            (IMAGE, request.reference_image),
            (DIGEST, request.reference_digest),
            (SEVERAL, request.references),
        )
        if value
    ]
    for field in given:
        check_takes_references(findings, field, ready)
    for field in given[1:]:
        limit = "the limit is one of the two" if len(given) == 2 else "the limit is one of them"
        findings.add(field, f"is set together with {given[0]}", limit)
    if request.reference_image:
        check_image(findings, IMAGE, request.reference_image, limits)
        references.append(PortraitReference(field=IMAGE, image=request.reference_image))
    if request.reference_digest:
        check_digest(findings, DIGEST, request.reference_digest)
        references.append(PortraitReference(field=DIGEST, digest=request.reference_digest))
    most = min(limits.max_references, ready.model.max_references)
    if request.reference_count > most:
        findings.add(SEVERAL, f"has {request.reference_count} references", f"the limit is {most}")
    for index, reference in enumerate(request.references[:most]):
        path = f"{SEVERAL}[{index}]"
        references.append(_check_one(findings, path, reference, limits))
        if reference.region is not None:
            _check_region(findings, f"{path}.region", reference.region, request, ready)
    return tuple(references)


def _check_one(
    findings: Findings, path: str, reference: RequestedReference, limits: LimitOptions
) -> PortraitReference:
    weight = 1.0 if reference.weight is None else reference.weight
    findings.number(f"{path}.weight", weight, 0, limits.max_reference_weight)
    field = path
    if reference.image is not None:
        field = f"{path}.image"
        check_image(findings, field, reference.image, limits)
    elif reference.digest is not None:
        field = f"{path}.digest"
        check_digest(findings, field, reference.digest)
    else:
        findings.add(path, "has neither image nor digest", "the limit is one of the two")
    return PortraitReference(
        field=field,
        image=reference.image or b"",
        digest=reference.digest or "",
        weight=weight,
        region=reference.region,
        weight_field=f"{path}.weight",
    )


def _check_region(
    findings: Findings, path: str, region: Region, request: PortraitRequest, ready: Ready
) -> None:
    """Check that it lies in the picture and reaches a latent cell: a thinner one would condition nothing."""
    model = ready.model
    if not model.reference_regions:
        findings.add(path, "is set", "the limit is none: the model takes no regions here")
        return
    left, top, right, bottom = region
    for name, edge in (("left", left), ("top", top), ("right", right), ("bottom", bottom)):
        findings.number(f"{path}.{name}", edge, 0, 1)
    for low, high, least, most, side in (
        ("left", "right", left, right, request.width or model.default_width),
        ("top", "bottom", top, bottom, request.height or model.default_height),
    ):
        pixels = (most - least) * side
        if 0 <= most <= least <= 1:
            findings.add(
                f"{path}.{high}", f"is {most:g}", f"the limit is more than {low} ({least:g}), up to 1"
            )
        elif 0 <= least < most <= 1 and pixels < model.latent_scale:
            findings.add(
                f"{path}.{high}",
                f"is {most:g}, {pixels:.1f} pixels from {low}",
                f"the limit is at least {model.latent_scale} pixels",
            )

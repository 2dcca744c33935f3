"""What tasks that ask a target together raise."""

import asyncio

import pytest

from loadtests.runner.errors import TargetError
from loadtests.runner.tasks import asking


async def fail(error: Exception) -> None:
    raise error


async def together(*errors: Exception) -> None:
    async with asking() as group:
        for error in errors:
            group.create_task(fail(error))


def test_refusals_are_raised_as_the_first_and_not_as_a_group() -> None:
    with pytest.raises(TargetError, match="one") as raised:
        asyncio.run(together(TargetError("one"), TargetError("two")))
    assert isinstance(raised.value.__cause__, ExceptionGroup)


def test_another_error_is_not_hidden_by_a_refusal() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(together(TargetError("one"), KeyError("two")))
    assert raised.value.subgroup(KeyError) is not None

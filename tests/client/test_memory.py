"""The pictures that a client keeps are bounded."""

from limner_client.memory import ReferenceMemory


def test_the_least_recently_used_picture_leaves_first():
    memory = ReferenceMemory(max_bytes=10)
    memory.keep("a", b"1234")
    memory.keep("b", b"5678")
    assert memory.find("a") == b"1234"
    memory.keep("c", b"9012")
    assert memory.find("b") is None
    assert memory.find("a") == b"1234"
    assert memory.size_bytes == 8


def test_keeping_again_counts_once_and_the_too_large_is_not_kept():
    memory = ReferenceMemory(max_bytes=10)
    memory.keep("a", b"1234")
    memory.keep("a", b"1234")
    assert memory.size_bytes == 4
    memory.keep("b", b"x" * 11)
    assert memory.find("b") is None
    assert memory.find("a") == b"1234"
    memory.forget("a")
    memory.forget("a")
    assert memory.size_bytes == 0

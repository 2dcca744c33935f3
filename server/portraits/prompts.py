"""Which part of a prompt the text encoder saw."""

from __future__ import annotations


def seen_part(prompt: str, dropped: str) -> str:
    """Return ``prompt`` without ``dropped``, its end as the tokenizer spells it: in lower case, spaced differently.

    Returns the whole prompt where its end is spelt in another way yet.
    """
    wanted = "".join(dropped.split()).lower()
    end = len(prompt)
    while wanted and end:
        end -= 1
        letter = prompt[end].lower()
        if letter.isspace():
            continue
        if not wanted.endswith(letter):
            return prompt
        wanted = wanted[: -len(letter)]
    return prompt if wanted else (prompt[:end].rstrip() if dropped else prompt)

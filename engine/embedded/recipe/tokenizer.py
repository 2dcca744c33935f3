"""Learn a small byte-level BPE vocabulary from captions, in CLIP's own format."""

import json
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from engine.embedded.world import caption, sample_identity, sample_scene

MAX_TOKENS = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
# The split of CLIPTokenizer (transformers, tokenization_clip.py); merges never cross its pieces.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(
    directory: Path, *, captions: int = 20_000, merges: int = 640, seed: int = 5
) -> CLIPTokenizer:
    """Return the tokenizer, kept in `directory`; any UTF-8 text falls back to bytes."""
    if not (directory / "vocab.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        random = Random(seed)
        texts = [
            caption(
                sample_scene(random),
                random,
                identity=sample_identity(random) if random.random() < 0.5 else None,
            )
            for _ in range(captions)
        ]
        bpe = Tokenizer(BPE(end_of_word_suffix="</w>"))
        bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = BpeTrainer(
            vocab_size=2 * len(letters) + merges,
            initial_alphabet=letters,
            end_of_word_suffix="</w>",
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        pairs = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
        tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
        tokens += [token for token in dict.fromkeys(a + b for a, b in pairs) if token not in set(tokens)]
        vocabulary = {token: number for number, token in enumerate([*tokens, _START, _END])}
        (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))
    vocabulary = json.loads((directory / "vocab.json").read_text())
    lines = (directory / "merges.txt").read_text().splitlines()[1:]
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(line.split(" ")) for line in lines],
        model_max_length=MAX_TOKENS,
    )

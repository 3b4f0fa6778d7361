"""The embedded base's text encoder: a CLIP text model whose vocabulary is learned from the tasks' prompts."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 128
"""Width of the embeddings, the U-Net's cross_attention_dim."""
LENGTH = 32
"""Tokens in a prompt, start and end included."""
START, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(texts: list[str], folder: Path, vocabulary: int = 1500) -> CLIPTokenizer:
    """Byte pairs learned from the texts; any other text still has tokens, down to single bytes."""
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bytes_alone = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=bytes_alone, end_of_word_suffix="</w>", show_progress=False
    )
    model.train_from_iterator([text.lower() for text in texts], trainer)
    learned = json.loads(model.to_str())["model"]
    tokens = [*bytes_alone, *(f"{byte}</w>" for byte in bytes_alone)]
    tokens += [token for token in learned["vocab"] if token not in set(tokens)]
    vocab = {token: i for i, token in enumerate([*tokens, START, END])}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in learned["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers, width 128: about half a million parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )

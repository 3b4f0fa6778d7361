"""Prompts: words, codes, and the same in other words."""

import numpy as np

from pixeltraj.finetune.paraphrase import paraphrase
from pixeltraj.prompt import worded
from pixeltraj.tasks import TASKS

PROMPTS = sorted({task.prompt for task in TASKS.values()})


def test_codes_tell_all_tasks_apart_and_say_nothing_else() -> None:
    codes = [worded(prompt, "one-hot") for prompt in PROMPTS]
    assert len(set(codes)) == len(PROMPTS)
    assert not set(" ".join(codes).split()) & set(" ".join(PROMPTS).split())
    assert worded("push the puck", "none") == worded("", "one-hot") == ""
    assert worded("push the puck", "language") == "push the puck"


def test_no_two_prompts_share_a_paraphrase() -> None:
    rng = np.random.default_rng(0)
    owner: dict[str, str] = {}
    for prompt in PROMPTS:
        for text in {paraphrase(prompt, rng) for _ in range(100)}:
            assert owner.setdefault(text, prompt) == prompt


def test_half_of_the_paraphrases_are_the_prompt_itself() -> None:
    rng = np.random.default_rng(0)
    texts = [paraphrase("push the puck to the goal", rng) for _ in range(1000)]
    assert 450 < texts.count("push the puck to the goal") < 650
    assert any("disc" in text and "target" in text for text in texts)

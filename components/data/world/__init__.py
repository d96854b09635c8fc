"""Corpora that the project writes itself: one small world of facts and everyday scenes, seen from several sides.

Everything is determined by the code and the libraries' data: no seed, clock, locale or network enters. Meanings
(`scenes`, `facts`) are assigned to train, validation or test by a stable hash before any of them becomes a sentence,
so no sentence of a test split occurs in a train split, within a dataset or across them.
"""

from collections.abc import Callable
from typing import Any

from paperflows.components.data.world.media import picture_rows, speech_rows, tune_rows
from paperflows.components.data.world.render_alignment import chinese_text_rows, judged_rows, prompt_rows
from paperflows.components.data.world.render_chains import chain_rows
from paperflows.components.data.world.render_classes import question_rows, topic_rows
from paperflows.components.data.world.render_documents import document_rows
from paperflows.components.data.world.render_graphs import graph_rows, relation_rows
from paperflows.components.data.world.render_minimal_pairs import minimal_pairs
from paperflows.components.data.world.render_nli import nli_rows
from paperflows.components.data.world.render_pairs import paraphrase_pairs, sts_pairs
from paperflows.components.data.world.render_requests import request_rows
from paperflows.components.data.world.render_reviews import review_rows, tree_rows
from paperflows.components.data.world.render_sums import sum_rows, telling_rows
from paperflows.components.data.world.render_tags import tag_rows
from paperflows.components.data.world.render_text import text_rows, triple_rows
from paperflows.components.errors import InputError

Row = dict[str, Any]
Splits = dict[str, list[Row]]


def _sized(rows: Callable[[str, int], list[Row]], train: int, validation: int, test: int) -> Callable[[], Splits]:
    sizes = {"train": train, "validation": validation, "test": test}
    return lambda: {split: rows(split, count) for split, count in sizes.items()}


WORLD: dict[str, Callable[[], Splits]] = {
    "world_chains": lambda: {"test": chain_rows("test", 300)},
    "world_names": _sized(tag_rows, 1_200, 300, 500),
    "world_chinese": _sized(chinese_text_rows, 3_000, 300, 300),
    "world_graph": graph_rows,
    "world_digits": picture_rows,
    "world_documents": document_rows,
    "world_judged": _sized(judged_rows, 150, 40, 40),
    "world_minimal_pairs": minimal_pairs,
    "world_nli": _sized(nli_rows, 2_100, 200, 500),
    "world_pairs_class": _sized(paraphrase_pairs, 1_500, 300, 600),
    "world_prompts": lambda: {"test": prompt_rows("test", 40)},
    "world_questions": _sized(question_rows, 1_500, 300, 600),
    "world_relations": relation_rows,
    "world_requests": _sized(request_rows, 300, 60, 120),
    "world_reviews": _sized(review_rows, 1_200, 200, 400),
    "world_spoken": speech_rows,
    "world_sts": _sized(sts_pairs, 3_000, 800, 1_500),
    "world_sums": _sized(sum_rows, 2_500, 300, 300),
    "world_tellings": _sized(telling_rows, 2_500, 300, 300),
    "world_text": _sized(text_rows, 9_000, 800, 800),
    "world_topics": _sized(topic_rows, 1_500, 300, 600),
    "world_trees": _sized(tree_rows, 400, 100, 200),
    "world_triples": triple_rows,
    "world_tunes": _sized(tune_rows, 600, 60, 100),
}


def build(name: str) -> Splits:
    """Rows by split of one built-in dataset.

    Raises:
        InputError: no such dataset.
    """
    if name not in WORLD:
        raise InputError(f"built-in dataset {name!r}: expected one of {', '.join(sorted(WORLD))}")
    return WORLD[name]()

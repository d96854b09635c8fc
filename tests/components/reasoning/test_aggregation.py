"""AoR on cases worked by hand, with judges whose every score is known."""

import pytest

from paperflows.components.errors import InputError
from paperflows.components.reasoning.aggregation import Chain, Settings, run_all
from paperflows.components.reasoning.recorded import read_questions, recorded_sampler
from paperflows.components.reasoning.steps import score_arithmetic, score_letters


def question(answers, gold="a", text="q", model="m"):
    chains = [{"model": model, "text": f"{text} {i}", "answer": a} for i, a in enumerate(answers)]
    return {"id": text, "question": text, "answer": gold, "chains": chains}


def run(answers, local, compare=None, **settings):
    questions = read_questions([question(answers)], kind="letters")
    seen = {"local": [], "compare": []}

    def scored(kind, table):
        def score(asks):
            seen[kind] += asks
            return [[table[c.number] if isinstance(table, dict) else table(c) for c in a.chains] for a in asks]

        return score

    outcome = run_all(
        [0], Settings(**settings), seed=0, sample=recorded_sampler(questions, "the record"),
        local=scored("local", local), compare=scored("compare", compare or (lambda c: 5.0)),
    )[0]  # fmt: skip
    return outcome, seen


def test_one_answer_needs_no_judge():
    outcome, seen = run(["a"] * 6, lambda c: 1 / 0, first=6, most=6)
    assert (outcome.answer, outcome.ended, outcome.sampled) == ("a", "one answer", 6)
    assert seen == {"local": [], "compare": []}


def test_the_better_reasoned_minority_wins():
    points = {0: 7, 1: 7, 2: 7, 3: 9, 4: 3}
    outcome, seen = run(["b", "b", "b", "a", "c"], points, points, first=5, most=5, keep=3)
    assert outcome.answer == "a" and outcome.margin == pytest.approx(2.0) and outcome.ended == "margin"
    # c did not reach the threshold of 6, so that each of three rounds compares one chain of b and the one of a
    rounds = [{(c.answer, c.number) for c in ask.chains} for ask in seen["compare"]]
    assert rounds == [{("b", 0), ("a", 3)}, {("b", 1), ("a", 3)}, {("b", 2), ("a", 3)}]
    assert (outcome.local_calls, outcome.compare_calls) == (3, 3)


def test_local_scoring_sees_one_answer_at_a_time_in_batches():
    _, seen = run(["b"] * 7 + ["a"], lambda c: 8.0, first=8, most=8, batch=5)
    assert [[c.number for c in ask.chains] for ask in seen["local"]] == [[0, 1, 2, 3, 4], [5, 6], [7]]
    assert all(ask.anchors == () for ask in seen["local"])


def test_sampling_goes_on_while_the_margin_is_small():
    answers = ["a", "b", "a", "b", "b", "a", "a"]
    local = {0: 8, 1: 7, 2: 9, 3: 8, 4: 6, 5: 10, 6: 7}
    outcome, seen = run(answers, local, lambda c: {"a": 6.0, "b": 5.0}[c.answer], first=3, most=7, step=2, keep=2)
    assert outcome.sampled == 7 and outcome.ended == "all chains" and outcome.answer == "a"
    later = [ask for ask in seen["local"] if ask.anchors]
    assert [[c.number for c in ask.chains] for ask in later] == [[3, 4], [5, 6]]
    assert [[(c.number, points) for c, points in ask.anchors] for ask in later] == [[(1, 7)], [(2, 9), (0, 8)]]
    # each comparison has two rounds, one a representative
    assert [t["sampled"] for t in outcome.trace] == [3, 5, 7]


def test_no_new_comparison_while_the_representatives_stay():
    local = {0: 8, 1: 8, 2: 6, 3: 6, 4: 6, 5: 6}
    outcome, _ = run(["a", "b"] * 3, local, lambda c: 5.0, first=2, most=6, step=2, keep=1)
    assert outcome.sampled == 6 and outcome.compare_calls == 1


def test_no_chain_reaches_the_threshold():
    outcome, _ = run(["a", "b", "b"], lambda c: 2.0, first=3, most=3)
    assert outcome.answer == "b" and outcome.ended.startswith("majority")


def test_local_scores_decide_where_no_comparison_can_be_read():
    def compare(asks):
        return [[None] * len(ask.chains) for ask in asks]

    answers = ["a", *["b"] * 5]
    chains = [Chain(i, f"chain {i}", answer) for i, answer in enumerate(answers)]
    outcome = run_all(
        [0], Settings(first=6, most=6), seed=0, sample=lambda asks: [chains],
        local=lambda asks: [[10.0 if c.answer == "b" else 8.0 for c in ask.chains] for ask in asks], compare=compare,
    )[0]  # fmt: skip
    assert outcome.answer == "b" and outcome.ended.endswith("no comparison was read") and outcome.unread == 6


def test_unread_scores_are_counted_and_their_chains_left_out():
    outcome, _ = run(["a", "b", "b"], {0: 9, 1: None, 2: None}, first=3, most=3)
    assert outcome.answer == "a" and outcome.unread == 2


def test_chains_without_an_answer_are_sampled_but_not_judged():
    outcome, seen = run(["a", None, "b"], lambda c: 9.0, lambda c: {"a": 9.0, "b": 1.0}[c.answer], first=3, most=3)
    assert outcome.sampled == 3 and 1 not in {c.number for ask in seen["local"] for c in ask.chains}


def test_asking_beyond_the_record_names_it():
    with pytest.raises(InputError, match="the record: 9 chains of question 0 were asked for, 3 are recorded"):
        run(["a", "b", "a"], lambda c: 9.0, first=9, most=9)


def test_questions_of_one_round_are_asked_together():
    questions = read_questions([question(["a", "b"], text=str(i)) for i in range(4)], kind="letters")
    batches = []

    def local(asks):
        batches.append(len(asks))
        return [[9.0] for _ in asks]

    run_all(
        range(4), Settings(first=2, most=2), seed=0, sample=recorded_sampler(questions, ""), local=local,
        compare=lambda asks: [[9.0, 1.0] for _ in asks],
    )  # fmt: skip
    assert batches == [8]


def test_letters_are_checked_against_the_question():
    asked = 'Take the last letters of each words in "Whitney Erika Tj" and concatenate them.'
    good = "The last letter of 'Whitney' is 'y'. The last letter of 'Erika' is 'a'. The last letter of 'Tj' is 'j'."
    assert score_letters(asked, good, "yaj") == 10
    assert score_letters(asked, good, "yja") == 8
    assert score_letters(asked, good.replace("'a'.", "'k'."), "ykj") == 7
    assert score_letters(asked, good.replace("'Tj'", "'Taj'"), "yaj") == 7
    assert score_letters(asked, "The answer is yaj.", "yaj") == 0


def test_arithmetic_is_checked_by_recomputing():
    asked = "Janet has 16 eggs, eats 3 and bakes 4. She sells the rest at 2 dollars. How much does she make?"
    assert score_arithmetic(asked, "16 - 3 - 4 = 9 eggs. 9 * 2 = 18 dollars.", "18") == 10
    assert score_arithmetic(asked, "16 - 3 - 4 = 8 eggs. 8 * 2 = 16 dollars.", "16") == 8
    assert score_arithmetic(asked, "It is 18.", "18") == 0


def test_chain_filters():
    rows = [question(["a", "b"])]
    rows[0]["chains"][1] |= {"style": "pot", "temperature": 0.4}
    kept = read_questions(rows, kind="letters", styles=["pot"], temperature=0.4)[0].chains
    assert kept == (Chain(0, "q 1", "b"),)
    with pytest.raises(InputError, match="leave no chain"):
        read_questions(rows, kind="letters", without_models=["m"])

"""Writing and reading back, on hand-worked cases, for any records, and for any text at all."""

import json
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.extraction.corruption import KINDS, corrupt, official_records
from paperflows.components.extraction.forms import FORMS
from paperflows.components.extraction.records import ENTITY_KEYS, Schema, Sentence, Span, bio_spans, records_of

NER = Schema(("location", "person"))
RE = Schema(("location", "person"), ("live in",))
SENTENCE = Sentence(
    ("Ann", "Lee", "lives", "in", "Oslo"), (Span(0, 2, "person"), Span(4, 5, "location")), ((0, 1, "live in"),)
)


def test_code_of_entities():
    form = FORMS["code"]
    assert form.prompt(SENTENCE.text, NER) == (
        'def named_entity_recognition(input_text):\n\t""" extract named entities from the input_text . """\n'
        '\tinput_text = "Ann Lee lives in Oslo"\n\tentity_list = []\n\t# extracted named entities\n'
    )
    assert form.target(records_of(SENTENCE, NER), NER) == (
        '\tentity_list.append({"text": "Ann Lee", "type": "person"})\n'
        '\tentity_list.append({"text": "Oslo", "type": "location"})\n'
    )


def test_brackets():
    assert (
        FORMS["sel"].target(records_of(SENTENCE, NER), NER)
        == "<0> <0> person <5> Ann Lee <1> <0> location <5> Oslo <1> <1>\n"
    )
    target = FORMS["sel"].target(records_of(SENTENCE, RE), RE)
    assert target == "<0> <0> person <5> Ann Lee <0> live in <5> Oslo <1> <1> <0> location <5> Oslo <1> <1>\n"
    assert FORMS["sel"].read(target, RE).records == records_of(SENTENCE, RE)


def test_a_tail_without_a_bracket_of_its_own_has_no_type():
    read = FORMS["sel"].read("<0> <0> person <5> Ann <0> live in <5> Oslo <1> <1> <1>", RE)
    assert read.records == [] and +read.counts == {"untyped_tail": 1}


@pytest.mark.parametrize("text", [
    "<0> <0> people John <1> <1>", "<0> <1> hello world", "<0> John <1> people <0> <1>", "<0> <0> person <5>  <1> <1>",
    "no brackets", "<0> <0> person <5> Ann <1> and more <1>", "<0> <0> person <5> Ann <1>", "",
])  # fmt: skip
def test_brackets_are_broken_by_whatever_is_left_over(text):
    assert FORMS["sel"].read(text, NER).counts["ill_formed"] == 1


def test_each_broken_bracket_counts_as_each_broken_line_of_code_does():
    broken = " ".join(["<0> person Ann <1>"] * 5)
    assert FORMS["sel"].read(f"<0> {broken} <1>", NER).counts["ill_formed"] == 5
    assert FORMS["code"].read("\tentity_list.append(Ann)\n" * 5, NER).counts["ill_formed"] == 5


def test_words_beside_the_records_break_neither_form():
    code = FORMS["code"].target([{"text": "Ann", "type": "person"}], NER) + "\t# that is all\n\treturn entity_list\n"
    flat = FORMS["sel"].target([{"text": "Ann", "type": "person"}], NER).strip()
    for name, text, beside in (("code", code, 2), ("sel", f"{flat} that is all", 1), ("sel", f"{flat}\nAll .", 1)):
        read = FORMS[name].read(text, NER)
        assert read.records == [{"text": "Ann", "type": "person"}], text
        assert read.counts["ill_formed"] == 0 and read.counts["beside"] == beside, text
    assert FORMS["code"].read("\t# nothing\n", NER).counts["ill_formed"] == 1, "words without a record"


def test_brackets_may_begin_late_and_go_on_over_lines():
    ann, oslo = ({"text": "Ann Lee", "type": "person"}, {"text": "Oslo", "type": "location"})
    read = FORMS["sel"].read("\n<0> <0> person <5> Ann Lee <1>\n<0> location <5> Oslo <1> <1>\nThe text is : ", NER)
    assert read.records == [ann, oslo] and +read.counts == {"beside": 1}


@pytest.mark.parametrize(
    "text", ["<0>" + " " * 5000, "<0> a" + " " * 5000 + "b", "<0> <5>" * 1000, "<0> a <5> b " * 500]
)
def test_a_degenerate_answer_is_read_at_once(text):
    started = time.process_time()
    for schema in (NER, RE):
        FORMS["sel"].read(text, schema)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["# blah blah prose", "\treturn x", "print(1)\n"])
def test_code_without_a_record_is_broken_unless_it_is_empty(text):
    assert FORMS["code"].read(text, NER).counts["ill_formed"] == 1
    assert not +FORMS["code"].read("\n", NER).counts


def test_a_relation_without_a_tail_is_broken():
    read = FORMS["sel"].read("<0> <0> person <5> Ann <0> live in Oslo <1> <1> <0> location <5> Oslo <1> <1>", RE)
    assert read.records == [] and read.counts["ill_formed"] == 1


def test_an_answer_that_is_cut_keeps_the_relations_that_were_said():
    read = FORMS["sel"].read("<0> <0> location <5> Oslo <1> <0> person <5> Ann Lee <0> live in <5> Oslo <1>", RE)
    assert read.records == records_of(SENTENCE, RE) and read.counts["ill_formed"] == 1


WORDS = st.text(alphabet="abcXYZ0'\"\\{}()é ,.", min_size=1, max_size=12).map(str.strip).filter(bool)
RECORDS = st.lists(st.fixed_dictionaries({"text": WORDS, "type": st.sampled_from(["location", "person"])}), max_size=5)


@pytest.mark.parametrize("name", FORMS)
@given(records=RECORDS)
def test_what_is_written_is_read_back(name, records):
    read = FORMS[name].read(FORMS[name].target(records, NER), NER)
    assert read.records == records and not +read.counts


NAMES = st.sampled_from(["Ann", "Bo Lee", "Oslo", "the {old} town"])
ONE_TYPE = {"Ann": "person", "Bo Lee": "person", "Oslo": "location", "the {old} town": "location"}


@pytest.mark.parametrize("name", FORMS)
@given(pairs=st.lists(st.tuples(NAMES, NAMES), max_size=6))
def test_relations_that_are_written_are_read_back(name, pairs):
    records = [
        {"rel_type": "live in", "ent1_type": ONE_TYPE[a], "ent1_text": a, "ent2_type": ONE_TYPE[b], "ent2_text": b}
        for a, b in pairs
    ]
    read = FORMS[name].read(FORMS[name].target(records, RE), RE)
    assert sorted(map(str, read.records)) == sorted(map(str, records)) and not +read.counts


@pytest.mark.parametrize("name", FORMS)
@given(text=st.text(max_size=200) | st.text(alphabet="<015>appendict({\"':,})\n\t `#defENDtype", max_size=200))
def test_no_text_raises(name, text):
    for schema in (NER, RE):
        for record in FORMS[name].read(text, schema).records:
            assert all(isinstance(value, str) for value in record.values())


@pytest.mark.parametrize(
    "bomb", ["\tentity_list.append(" + "(" * 3000, "x" * 100_000, "\tl.append(__import__('os').system('x'))"]
)
def test_code_is_never_run(bomb):
    assert FORMS["code"].read(bomb, NER).records == []


def test_dirty_answers_of_models():
    read = FORMS["code"].read
    text = 'def named_entity_recognition(input_text):\n\tinput_text = "Oslo"\n\tentity_list = []\n' + FORMS[
        "code"
    ].target([{"text": "Oslo", "type": "location"}], NER)
    assert read(text, NER).records == [{"text": "Oslo", "type": "location"}], "a repeated prompt is passed over"
    assert read('entity_list.append(dict(type="person", text="Ann"))', NER).records == [
        {"text": "Ann", "type": "person"}
    ]
    cut = read('\tentity_list.append({"text": "Ann", "type": "person"})\n\tentity_list.append({"text": "Os', NER)
    assert len(cut.records) == 1 and cut.counts["truncated"] == 1
    assert read("The entities are Ann and Oslo.", NER).counts["ill_formed"] == 1
    assert read(
        '\tentity_list.append({"text": "Ann", "type": "person"})\n# END\n\tentity_list.append({"text": "B", "type": "c"})',
        NER,
    ).records == [{"text": "Ann", "type": "person"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_exactly_the_records_that_are_left_are_found(kind, rate):
    random = Random(7)
    official_finds = ours_finds = left = 0
    for number in range(40):
        records = [{"text": f'name {i}, "{number}"', "type": "person"} for i in range(random.randint(0, 5))]
        text, kept = corrupt(FORMS["code"].target(records, NER), kind, rate, random)
        found = FORMS["code"].read(text, NER).records
        assert found == [records[i] for i in sorted(kept)], (kind, text)
        left += len(kept)
        ours_finds += len(found)
        official_finds += sum(r in found for r in official_records(text, ENTITY_KEYS))
    assert ours_finds == left
    if kind in {"dict_call", "single_quotes", "swapped_keys", "extra_key", "trailing_comment"} and rate == 1.0:
        assert official_finds == 0 < left


def test_the_official_expressions_read_an_undamaged_target():
    records = [{"text": "Ann", "type": "person"}, {"text": "Oslo", "type": "location"}]
    assert official_records(FORMS["code"].target(records, NER), ENTITY_KEYS) == records


def test_bio_spans():
    tags = ["B-per", "I-per", "O", "I-loc", "B-loc", "I-per"]
    assert bio_spans(tags) == [(0, 2, "per"), (3, 4, "loc"), (4, 5, "loc"), (5, 6, "per")]
    assert bio_spans([]) == []


def test_json_lines_refuse_what_is_no_record():
    read = FORMS["json"].read('{"text": "Ann", "type": "person"}\n[1]\n{"text": 3, "type": "x"}\n{"text": "A', NER)
    assert read.records == [{"text": "Ann", "type": "person"}]
    assert read.counts == {"ill_formed": 2, "truncated": 1, "extra_keys": 0}
    assert json.loads(FORMS["json"].target(read.records, NER))

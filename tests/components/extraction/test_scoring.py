from paperflows.components.extraction.demonstrations import draw_shots, few_shot_prompt, without
from paperflows.components.extraction.forms import FORMS
from paperflows.components.extraction.records import Schema, Sentence, Span, read_sentences, records_of
from paperflows.components.extraction.scoring import counts_of, locate, occurrences

NER = Schema(("location", "person"))
RE = Schema(("location", "person"), ("live in",))


def test_an_entity_takes_the_first_place_that_is_free():
    sentence = Sentence(("Oslo", "and", "Oslo", "."), (Span(0, 1, "location"), Span(2, 3, "location")))
    said = [{"text": "Oslo", "type": "location"}] * 3
    found = locate(said, sentence, NER)
    assert found.entities == [(0, 1, "location"), (2, 3, "location")]
    assert counts_of(found, sentence, NER).tolist() == [2, 2, 2]


def test_a_relation_takes_the_nearest_places():
    tokens = ("Ann", "met", "Bo", ";", "Ann", "lives", "in", "Oslo")
    sentence = Sentence(tokens, (Span(4, 5, "person"), Span(7, 8, "location")), ((0, 1, "live in"),))
    found = locate(records_of(sentence, RE), sentence, RE)
    assert found.relations == [("live in", (4, 5, "person"), (7, 8, "location"))]
    assert counts_of(found, sentence, RE).tolist() == [1, 1, 1]


def test_strict_relations_need_the_entity_types():
    sentence = Sentence(("Ann", "in", "Oslo"), (Span(0, 1, "person"), Span(2, 3, "location")), ((0, 1, "live in"),))
    (record,) = records_of(sentence, RE)
    found = locate([{**record, "ent2_type": "person"}], sentence, RE)
    assert counts_of(found, sentence, RE).tolist() == [0, 1, 1]


def test_what_is_invalid_is_counted_and_left_out():
    sentence = Sentence(("Ann", "in", "Oslo"), (Span(0, 1, "person"),))
    said = [{"text": "Ann", "type": "animal"}, {"text": "Bergen", "type": "location"}, {"text": "", "type": "person"}]
    found = locate(said, sentence, NER)
    assert found.counts == {"invalid_label": 1, "invalid_span": 2} and found.entities == []
    wrong = {"rel_type": "own", "ent1_type": "x", "ent1_text": "Bo", "ent2_type": "location", "ent2_text": "Rome"}
    counted = locate([wrong], sentence, RE).counts
    assert counted == {"invalid_relation": 1, "invalid_label": 1, "invalid_span": 1, "invalid_tail": 1}


def test_texts_are_found_as_whole_tokens():
    assert occurrences("New York", ("New", "York", ",", "New", "York", "er")) == [(0, 2), (3, 5)]
    assert occurrences("York er s", ("York", "er")) == []


def test_sentences_without_gold_count_against_precision():
    sentence = Sentence(("Nothing", "here"), ())
    assert counts_of(locate([{"text": "here", "type": "location"}], sentence, NER), sentence, NER).tolist() == [0, 1, 0]


def test_types_in_words():
    row = {
        "tokens": ["Ann"],
        "entities": [{"start": 0, "end": 1, "type": "Peop"}],
        "relations": [{"head": 0, "tail": 0, "type": "OrgBased_In"}],
    }
    (sentence,) = read_sentences([row], {"Peop": "people"})
    assert sentence.entities[0].type == "people" and sentence.relations[0][2] == "orgbased in"


def corpus():
    some = [Sentence((f"Ann{i}", "x"), (Span(0, 1, "person"),)) for i in range(5)]
    some += [Sentence((f"Oslo{i}", "Bo"), (Span(0, 1, "location"), Span(1, 2, "person"))) for i in range(2)]
    return some + [Sentence((f"nothing{i}",), ()) for i in range(3)]


def test_shots_cover_every_type_and_none():
    shots = draw_shots(corpus(), NER, 2, seed=1)
    assert sum(any(s.type == "location" for s in shot.entities) for shot in shots) >= 2
    assert sum(not shot.entities for shot in shots) == 2 and len(shots) == 6
    assert draw_shots(corpus(), NER, 2, seed=1) == shots != draw_shots(corpus(), NER, 2, seed=2)


def test_prompts_end_where_the_target_begins():
    shots = draw_shots(corpus(), NER, 1, seed=0)
    for form in FORMS.values():
        prompt = few_shot_prompt(form, shots, corpus()[0], NER)
        assert prompt.count("# END") == len(shots) and prompt.endswith(form.prompt("Ann0 x", NER))


def test_no_demonstration_is_a_test_sentence():
    assert without(corpus(), corpus()[:2]) == corpus()[2:]

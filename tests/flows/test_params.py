import re
from pathlib import Path

import pytest
import yaml

from paperflows.components.errors import InputError
from paperflows.flows.params import PROFILES, load_parameters
from paperflows.flows.registry import load_flow, slugs, summaries

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("slug", slugs())
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_of_every_flow_is_valid(slug, profile):
    paper, _ = load_flow(slug)
    params = load_parameters(paper.parameters, slug, ROOT, profile=profile)
    assert params.profile == profile and paper.slug == slug


@pytest.mark.parametrize("slug", slugs())
def test_every_field_is_described(slug):
    def undescribed(model, path=""):
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                yield from undescribed(kind, f"{path}{name}.")
            elif not field.description:
                yield path + name

    assert list(undescribed(load_flow(slug)[0].parameters)) == []
    assert dict(summaries())[slug]


@pytest.mark.parametrize("slug", slugs())
def test_laptop_values_live_in_params_yaml_alone(slug):
    """Every field that a flow defines is in the file, so that reading the file tells what runs."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))[slug]
    model = load_flow(slug)[0].parameters
    assert set(model.model_fields) == set(section)


def change(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["student.widht=3"], r"unknown parameter claif\.student\.widht; did you mean width\?"),
        (["studnet.width=3"], r"unknown parameter claif\.studnet; did you mean student"),
        (["student.width=wide"], r"parameter claif\.student\.width: input should be a valid integer.*'wide'"),
        (["student.width=2"], r"greater than or equal to 8, got 2"),
        (["seeds=[]"], r"claif\.seeds"),
        (["student.width"], r"expected name=value"),
        (["=3"], r"expected name=value"),
        (["student.width={"], r"not YAML"),
        (["annotation.writer.kind=magic"], r"claif\.annotation\.writer\.kind"),
    ],
)
def test_wrong_overrides_are_named(overrides, message):
    with pytest.raises(InputError, match=message):
        load_parameters(load_flow("claif")[0].parameters, "claif", ROOT, overrides=overrides)


@pytest.mark.parametrize(
    ("slug", "override", "message"),
    [
        ("lpt", "datasets.builtin.tasks=[world_topics]", "timed: world_questions is none of the tasks world_topics"),
        ("lpt", "judged=[input]", "judged: full, naive cannot be left out"),
        ("lpt", "rates.full=[]", "rates: none for full"),
        ("hag", "evaluated=11", "evaluated: 11 are more than limits.test keeps, 10"),
        ("aor", "selection.keep=0", "selection.keep"),
        ("rectify_router", "experts=5", "experts: 5 cannot be spread evenly over 2 workers"),
        ("rectify_router", "capacity_factor=0", "capacity_factor"),
        ("uar", "asking=2", "asking"),
        ("llatrieval", "corpus.index=tree", "corpus.index"),
    ],
)
def test_values_that_a_flow_cannot_run_with_are_named(slug, override, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_parameters(load_flow(slug)[0].parameters, slug, ROOT, profile="smoke", overrides=[override])


def test_overrides_win_over_profile_over_laptop():
    kind = load_flow("claif")[0].parameters
    laptop = load_parameters(kind, "claif", ROOT)
    smoke = load_parameters(kind, "claif", ROOT, profile="smoke")
    mine = load_parameters(kind, "claif", ROOT, profile="smoke", overrides=["student.width=64", "seeds=[7]"])
    assert laptop.student.width != smoke.student.width
    assert (mine.student.width, mine.seeds, mine.student.layers) == (64, (7,), smoke.student.layers)


def test_missing_files_sections_profiles_and_folders(tmp_path):
    kind = load_flow("claif")[0].parameters
    with pytest.raises(InputError, match=r"params\.yaml does not exist"):
        load_parameters(kind, "claif", tmp_path)
    change(tmp_path, "other: {}\n")
    with pytest.raises(InputError, match="no section claif"):
        load_parameters(kind, "claif", tmp_path)
    change(tmp_path, "claif: {seeds: [1\n")
    with pytest.raises(InputError, match="not YAML"):
        load_parameters(kind, "claif", tmp_path)
    change(tmp_path, "claif: {}\n")
    with pytest.raises(InputError, match=r"claif\.seeds is missing"):
        load_parameters(kind, "claif", tmp_path)
    with pytest.raises(InputError, match="unknown profile 'laptob'; did you mean laptop"):
        load_parameters(kind, "claif", ROOT, profile="laptob")
    with pytest.raises(InputError, match="neither builtin, hub nor a folder"):
        load_parameters(kind, "claif", ROOT, data=str(tmp_path / "none"))


def test_source_chooses_the_names():
    params = load_parameters(load_flow("claif")[0].parameters, "claif", ROOT)
    assert params.datasets.of("builtin") is params.datasets.builtin
    assert params.datasets.of("hub") is params.datasets.hub
    assert params.datasets.of("/some/folder") is params.datasets.folder


def test_hub_names_are_in_the_registry():
    from paperflows.components.data.registry import HUB

    names = load_parameters(load_flow("claif")[0].parameters, "claif", ROOT).datasets.hub
    used = {*names.unlabelled, names.validation, *names.similarity, names.nli, *names.transfer}
    assert used <= HUB.keys()


def test_unknown_flow_offers_near_names():
    with pytest.raises(InputError, match="unknown flow 'clafi'; did you mean claif"):
        load_flow("clafi")

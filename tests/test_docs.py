"""What the documents say is what the files say."""

import json
import re
import shlex
from pathlib import Path

import pytest

from paperflows.tasks.report import claim_rows

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "infra" / "README.md"]


def test_the_table_of_claims_in_the_readme_is_the_committed_report():
    report = json.loads((ROOT / "docs" / "results" / "claif.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in claim_rows(report):
        columns = ("claim", "ours", "baseline", "effect", "95 % interval", "verdict")
        assert "| " + " | ".join(row[c] for c in columns) + " |" in readme
    assert report["profile"] == "study" and len(report["seeds"]) >= 3
    assert report["device"] in readme and report["git"].rstrip("+") in readme


def sections():
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    return {re.search(r"results/(\w+)\.", part)[1]: part for part in text.split("\n## ")[1:]}


def numbers(value):
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield abs(float(value))


@pytest.mark.parametrize("slug", sections())
def test_figures_of_a_study_stand_in_its_report(slug):
    """Every figure with two or three decimals is, rounded, one of the report's."""
    report = json.loads((ROOT / "docs" / "results" / f"{slug}.json").read_text(encoding="utf-8"))
    known = [*numbers(report["claims"]), *numbers(report["metrics"])]
    for said in re.findall(r"(?<![\w.])\d+\.\d{2,3}(?![\d.])", sections()[slug]):
        places = len(said.split(".")[1])
        assert any(f"{value:.{places}f}" == said for value in known), f"{said} is no figure of {slug}.json"


def test_figures_of_performance_stand_in_the_measurements():
    files = (ROOT / "docs" / "results" / "bench").glob("*.json")
    known = [value for file in files for value in numbers(json.loads(file.read_text(encoding="utf-8"))["figures"])]
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    said = re.findall(r"(?<![\w.])\d+\.\d{2}(?![\d.])", text)
    assert said
    for figure in said:
        assert any(f"{value:.2f}" == figure for value in known), f"{figure} was not measured"


def test_every_study_has_its_section():
    assert set(sections()) == {path.stem for path in (ROOT / "docs" / "results").glob("*.json")}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:components|tasks|flows|tests|docs|infra|params)/[\w/.-]+\.\w+)`", text):
        made_by_the_example = "overlap" in name or name.endswith("test_overlap.py")
        assert made_by_the_example or (ROOT / name).exists(), name


def test_readme_lists_the_nineteen_papers_and_where_each_flow_is():
    import yaml

    from paperflows.flows.registry import slugs

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[`(\w+)`\]\(flows/(\w+)\.py\) \| .+\? \| .+ \|$", readme, re.M)
    papers = [slug for slug, _ in yaml.safe_load((ROOT / "paperflows" / "papers.yaml").read_text())]
    assert listed == [(slug, slug) for slug in papers] and len(papers) == 19
    assert set(papers) == set(slugs())


def test_readme_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.M), target


def commands():
    """`paperflows run` commands on a user's folder in the documents: (flow, its parameters as given)."""
    for document in DOCUMENTS:
        for block in re.findall(r"```\n(.*?)```", document.read_text(encoding="utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith("paperflows run ") else []
                if "--data" in words and "…" not in words:
                    yield pytest.param(words[2], words[3:], id=f"{document.name}-{words[2]}")


def folders(values):
    """What is read where a folder is the source: every section `folder` of the parameters."""
    if isinstance(values, dict):
        if "folder" in values and "builtin" in values:
            yield values["folder"]
        for one in values.values():
            yield from folders(one)


def names(value):
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from names(one)
    elif isinstance(value, str) and re.fullmatch("[a-z0-9_]+", value):
        yield value


@pytest.mark.parametrize(("slug", "given"), commands())
def test_a_documented_command_reads_the_users_datasets_and_no_other(slug, given, tmp_path):
    """Its parameters are valid, and none of the datasets that the project names for its studies is left in them."""
    from paperflows.flows.params import load_parameters
    from paperflows.flows.registry import load_flow

    kind = load_flow(slug)[0].parameters
    sets = [given[i + 1] for i, word in enumerate(given) if word == "--set"]
    params = load_parameters(kind, slug, ROOT, data=str(tmp_path), overrides=sets).model_dump(mode="json")
    usual = load_parameters(kind, slug, ROOT).model_dump(mode="json")
    public = {*re.findall(r"^\| (\w+) \|", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.M)}
    assert public & {*names(list(folders(usual)))}, "the usual parameters name some: else nothing is tested"
    assert sets and not public & {*names(list(folders(params)))}

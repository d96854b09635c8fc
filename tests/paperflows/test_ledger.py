import json
import re
import shutil

import pytest

from paperflows.components.errors import InputError
from paperflows.ledger import build_ledger, interval_svg, save_result
from paperflows.tasks.plots import draw_claims

CLAIM = {
    "id": "c", "statement": "<script>alert(1)</script> beats it", "metric": "m", "ours": 0.8, "baseline": 0.7,
    "baseline_name": "b", "effect": 0.1, "margin": 0.0, "ci95": [0.05, 0.15], "n": 10, "paper": None, "verdict": "holds", "seeds": 3,
}  # fmt: skip


def report(paper="claif", profile="laptop", finished="2026-01-01T00:00:00+00:00", verdict="holds", **more):
    return {
        "paper": paper, "title": f"Title of {paper}", "profile": profile, "data": {"source": "builtin", "datasets": {}},
        "model": "tiny", "device": "cpu", "seeds": [0], "git": "abc", "seconds": 1.0, "finished": finished, "notes": [],
        "claims": [{**CLAIM, "verdict": verdict}], "metrics": {"m": 1.0}, "artifacts": [{"path": "p", "md5": "1.dir"}],
        "parameters": {"a": 1}, "run": {"id": "r", "mlflow": "ml", "prefect": "pf"}, "plots": [], **more,
    }  # fmt: skip


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_page_is_self_contained_and_escapes_what_reports_say(tmp_path):
    put(tmp_path / "reports" / "claif.json", report())
    draw_claims([CLAIM], tmp_path / "reports" / "claif" / "claims.png")
    page = build_ledger(tmp_path).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "data:image/png;base64," in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page), "nothing is loaded from elsewhere"
    assert "1 of 19 papers run" in page and "1 holds" in page


def test_all_nineteen_papers_are_listed_and_a_twentieth_is_added(tmp_path):
    put(tmp_path / "reports" / "mine.json", report("mine"))
    page = build_ledger(tmp_path).read_text()
    assert "1 of 20 papers run" in page and "Title of mine" in page
    assert page.count('<article class="planned">') == 19


def test_the_index_leads_to_each_paper_and_counts_its_verdicts(tmp_path):
    check = {**CLAIM, "kind": "check"}
    put(tmp_path / "reports" / "claif.json", report() | {"claims": [CLAIM, {**CLAIM, "verdict": "fails"}, check]})
    put(tmp_path / "reports" / "elue.json", report("elue", verdict="undecided"))
    page = build_ledger(tmp_path).read_text()
    links = re.findall(r'<a href="#(\w+)" title="[^"]+"><code>\1</code><span>(.*?)</span></a>', page)
    shown = {slug: re.findall(r'class="(\w+)"[^>]*>(\d+)<', counts) for slug, counts in links}
    assert shown == {
        "claif": [("holds", "1"), ("undecided", "0"), ("fails", "1")],
        "elue": [("holds", "0"), ("undecided", "1"), ("fails", "0")],
    }
    assert all(f'<article id="{slug}">' in page for slug in shown)
    assert "Not run here yet" in page


def test_committed_results_come_first_and_the_newest_run_of_each_kind(tmp_path):
    put(tmp_path / "docs" / "results" / "claif.json", report(profile="study", verdict="fails"))
    put(tmp_path / "reports" / "claif.json", report())
    put(
        tmp_path / "runs" / "a" / "report.json",
        report(profile="study", finished="2026-01-02T00:00:00+00:00", model="old"),
    )
    put(
        tmp_path / "runs" / "b" / "report.json",
        report(profile="study", finished="2026-01-03T00:00:00+00:00", model="new"),
    )
    page = build_ledger(tmp_path).read_text()
    assert "1 fails" in page and "0 holds" in page, "the tally counts what is shown first"
    assert "new" in page and "· old ·" not in page
    assert page.count("another run:") == 2


def test_links_to_running_servers(tmp_path):
    put(tmp_path / "reports" / "claif.json", report())
    links = {"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2"}
    page = build_ledger(tmp_path, links=links).read_text()
    assert 'href="http://127.0.0.1:1/runs/flow-run/pf"' in page and 'href="http://127.0.0.1:2/#' in page


def test_interval_drawing_keeps_its_order_on_the_axis():
    svg = interval_svg({**CLAIM, "ci95": [-0.2, 0.4], "margin": 0.1, "effect": 0.2})
    zero, margin = (float(re.search(rf'<line x1="([\d.]+)"[^>]*class="{c}"', svg)[1]) for c in ("zero", "margin"))
    low, high = (float(x) for x in re.search(r'<line x1="([\d.]+)" x2="([\d.]+)" y1="11"', svg).groups())
    dot = float(re.search(r'cx="([\d.]+)"', svg)[1])
    assert low < zero < margin < dot < high


def test_a_ratio_is_drawn_against_one():
    svg = interval_svg({**CLAIM, "compare": "ratio", "ci95": [0.8, 0.9], "margin": 1.1, "effect": 0.85})
    zero, margin = (float(re.search(rf'<line x1="([\d.]+)"[^>]*class="{c}"', svg)[1]) for c in ("zero", "margin"))
    high = float(re.search(r'x2="([\d.]+)" y1="11"', svg)[1])
    assert high < zero < margin


def test_tables_of_examples_are_shown_and_escaped(tmp_path):
    put(tmp_path / "reports" / "claif.json", report(tables={"a few": [{"question": "<b>2 + 3?</b>", "chosen": "5"}]}))
    page = build_ledger(tmp_path).read_text()
    assert "<summary>a few</summary>" in page and "&lt;b&gt;2 + 3?&lt;/b&gt;" in page and "<th>chosen</th>" in page


def test_bad_report_is_named(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json: not a report"):
        build_ledger(tmp_path)


def test_saving_a_run_keeps_what_the_documents_quote(tmp_path):
    run = tmp_path / "runs" / "claif-1"
    put(run / "report.json", report(profile="study", data={"source": "/home/me/corpora", "datasets": {}}))
    (run / "report.md").write_text("# md")
    draw_claims([CLAIM], run / "plots" / "claims.png")
    target = save_result(tmp_path, "runs/claif-1")
    shutil.rmtree(run)
    assert json.loads(target.read_text())["data"]["source"] == "corpora", "no path of the user's machine"
    assert (target.with_suffix("") / "claims.png").is_file() and target.with_suffix(".md").read_text() == "# md"
    with pytest.raises(InputError, match="no run"):
        save_result(tmp_path, "../../etc")


def test_leaderboard_gathers_all_papers_each_against_its_own_reference_the_best_first(tmp_path):
    row = {
        "dataset": "d",
        "method": "exits",
        "reference": "joint static",
        "score": 0.01,
        "area": None,
        "front_share": 0.5,
        "points": 3,
        "clamped": 0,
        "parameters": 23_000_000,
    }
    put(tmp_path / "reports" / "elue.json", report("elue", leaderboard=[row, {**row, "dataset": "e", "score": 0.03}]))
    put(
        tmp_path / "reports" / "hashee.json",
        report(
            "hashee",
            leaderboard=[
                {**row, "method": "<b>hash", "score": 0.05, "area": 0.04},
                {**row, "method": "clusters", "score": 0.07, "reference": "cut"},
            ],
        ),
    )
    page = build_ledger(tmp_path).read_text()
    board = page[page.index('id="leaderboard"') : page.index("Not run here yet")]
    # 0.02, then 0.07 and 0.05 of the other paper, whose scores are against another model
    assert board.index("<td>exits</td>") < board.index("<td>clusters</td>") < board.index("&lt;b&gt;hash")
    assert board.count(">joint static<") == 2 and board.count(">cut<") == 1
    assert "+0.0200" in board and "+0.0500" in board and "23.0 M" in board and "d, e" in board
    (tmp_path / "reports" / "elue.json").unlink()
    (tmp_path / "reports" / "hashee.json").unlink()
    put(tmp_path / "reports" / "claif.json", report())
    assert 'id="leaderboard"' not in build_ledger(tmp_path).read_text()

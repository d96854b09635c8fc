"""A real Prefect server, worker and MLflow server, a real flow, a real browser."""

import json
import os
import re
import signal
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ..conftest import wait_until

pytestmark = pytest.mark.e2e
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


@pytest.fixture(scope="module")
def run(served):
    """One smoke run by the command: its output and its report."""
    done = served.project.run("run", "claif", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    (path,) = (served.project.root / "runs").glob("*/report.json")
    return done, json.loads(path.read_text()), path.parent


@pytest.fixture(scope="module")
def browser():
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}", "--window-size=1280,2000"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        yield driver
        driver.quit()


def text_of(driver):
    return driver.find_element(By.TAG_NAME, "body").text


def see(driver, url, *wanted):
    """Open a page and wait until it shows every wanted text."""
    driver.get(url)
    WebDriverWait(driver, 60).until(lambda d: all(w in text_of(d) for w in wanted))


def test_run_prints_verdicts_and_where_the_page_is(run):
    done, report, folder = run
    assert re.search(r"claim.*ours.*baseline.*95 % interval.*verdict", done.stdout)
    assert done.stdout.count(" (simcse") == 2 and re.search(r"holds|fails|undecided", done.stdout)
    page = Path(re.search(r"report page: (.*)", done.stdout)[1])
    assert page.is_file() and "no Prefect server" not in done.stderr
    assert report["profile"] == "smoke" and len(report["claims"]) == 4 and report["seeds"] == [0, 1]
    for claim in report["claims"]:
        low, high = claim["ci95"]
        assert low <= claim["effect"] <= high
        assert claim["verdict"] == ("holds" if low > 0 else "fails" if high <= 0 else "undecided")
    assert all(len(sha) == 64 for sha in report["data"]["datasets"].values())
    saved = yaml.safe_load((folder / "artifacts" / "config.yaml").read_text())["claif"]
    assert saved["student"]["width"] == 32 and saved == report["parameters"]


def test_prefect_knows_every_task_and_shows_artifacts(served, run):
    _, report, _ = run
    flow_run = report["run"]["prefect"]
    assert served.prefect(f"flow_runs/{flow_run}")["state"]["type"] == "COMPLETED"
    query = {"flow_runs": {"id": {"any_": [flow_run]}}}
    tasks = wait_until(lambda: (t := served.prefect("task_runs/filter", query)) and len(t) >= 45 and t, 60)
    wait_until(lambda: all(t["state_type"] == "COMPLETED" for t in served.prefect("task_runs/filter", query)), 60)
    names = {t["name"].split("-")[0] for t in tasks}
    assert {"train_masked_lm", "annotate_pairs", "score_triplets", "harden_labels", "regression", "dropout"} <= names
    artifacts = served.prefect("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    kinds = {a["key"]: a["type"] for a in artifacts if a["key"]}
    assert kinds["claif-claims"] == "table" and kinds["claif-report"] == kinds["claif-plots"] == "markdown"


def test_mlflow_has_parent_children_metrics_and_files(served, run):
    _, report, _ = run
    parent = served.mlflow(f"runs/get?run_id={report['run']['mlflow']}")["run"]
    tags = {t["key"]: t["value"] for t in parent["data"]["tags"]}
    assert parent["info"]["status"] == "FINISHED" and tags["prefect.flow_run_id"] == report["run"]["prefect"]
    assert tags["paperflows.dvc_md5"] == report["artifacts"][0]["md5"] and "data.world_sts" in tags
    params = {p["key"]: p["value"] for p in parent["data"]["params"]}
    assert params["student.width"] == "32"
    query = {
        "experiment_ids": [parent["info"]["experiment_id"]],
        "filter": f"tags.`mlflow.parentRunId` = '{parent['info']['run_id']}'",
    }
    children = served.mlflow("runs/search", query)["runs"]
    assert {c["info"]["run_name"] for c in children} >= {"masked_lm", "regression-seed0", "dropout-seed1"}
    assert all(c["info"]["status"] == "FINISHED" for c in children)
    masked_lm = next(c for c in children if c["info"]["run_name"] == "masked_lm")
    history = served.mlflow(f"metrics/get-history?run_id={masked_lm['info']['run_id']}&metric_key=loss")["metrics"]
    assert [m["step"] for m in history] == list(range(1, 11))
    files = {f["path"] for f in served.mlflow(f"artifacts/list?run_id={parent['info']['run_id']}")["files"]}
    assert files == {"artifacts", "plots", "report.json", "report.md"}
    model = served.mlflow(f"artifacts/list?run_id={parent['info']['run_id']}&path=artifacts/student")["files"]
    assert "artifacts/student/model.safetensors" in {f["path"] for f in model}


def test_outputs_are_in_the_dvc_cache_under_the_reported_hash(served, run):
    _, report, folder = run
    stored = yaml.safe_load(folder.with_suffix(".dvc").read_text())["outs"][0]
    assert stored["md5"].endswith(".dir")
    md5 = report["artifacts"][0]["md5"]
    listing = json.loads(
        (served.project.root / ".dvc" / "cache" / "files" / "md5" / stored["md5"][:2] / stored["md5"][2:]).read_text()
    )
    inside = [
        {**e, "relpath": e["relpath"].removeprefix("artifacts/")}
        for e in listing
        if e["relpath"].startswith("artifacts/")
    ]
    import hashlib

    assert hashlib.md5(json.dumps(inside).encode()).hexdigest() + ".dir" == md5


def test_second_run_computes_nothing(served, run):
    _, first, _ = run
    done = served.project.run("run", "claif", "--profile", "smoke")
    assert done.returncode == 0
    path = max((served.project.root / "runs").glob("*/report.json"), key=lambda p: p.stat().st_mtime)
    second = json.loads(path.read_text())
    assert second["run"]["id"] != first["run"]["id"]
    assert (second["claims"], second["metrics"], second["artifacts"][0]["md5"]) == (
        first["claims"], first["metrics"], first["artifacts"][0]["md5"],
    )  # fmt: skip
    query = {"flow_runs": {"id": {"any_": [second["run"]["prefect"]]}}}
    states = wait_until(lambda: (t := served.prefect("task_runs/filter", query)) and len(t) >= 45 and t, 60)
    wait_until(lambda: {t["state_name"] for t in served.prefect("task_runs/filter", query)} == {"Cached"}, 60)
    assert states


def test_a_deployed_run_started_from_the_api_does_the_same(served, run):
    _, report, _ = run
    deployment = served.prefect("deployments/name/claif/laptop")
    assert deployment["schedules"][0]["active"] is False and deployment["enforce_parameter_schema"]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    body = {"parameters": {"params": report["parameters"]}, "state": {"type": "SCHEDULED"}}
    flow_run = served.prefect(f"deployments/{deployment['id']}/create_flow_run", body)["id"]
    ended = ("COMPLETED", "FAILED", "CRASHED")
    wait_until(lambda: served.prefect(f"flow_runs/{flow_run}")["state_type"] in ended, 150)
    assert served.prefect(f"flow_runs/{flow_run}")["state_type"] == "COMPLETED"
    reports = [json.loads(p.read_text()) for p in (served.project.root / "runs").glob("*/report.json")]
    (deployed,) = [r for r in reports if r["run"]["prefect"] == flow_run]
    assert deployed["claims"] == report["claims"], "the same numbers as by the command"


def test_wrong_parameters_are_refused_by_the_deployment(served):
    deployment = served.prefect("deployments/name/claif/laptop")["id"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.prefect(f"deployments/{deployment}/create_flow_run", {"parameters": {"params": {"sedes": [0]}}})
    assert refused.value.code in (409, 422)


def test_browser_shows_the_form(served, browser):
    deployment = served.prefect("deployments/name/claif/laptop")["id"]
    wanted = ("Seeds", "One training of every method for each seed", "Student", "Hidden size", "Temperature")
    see(browser, f"{served.urls['prefect']}/deployments/deployment/{deployment}/run", *wanted)
    values = [e.get_attribute("value") for e in browser.find_elements(By.CSS_SELECTOR, "input")]
    assert "128" in values, "the form is filled from params.yaml"


def test_browser_shows_the_run_its_table_and_its_plots(served, run, browser):
    _, report, _ = run
    flow_run = report["run"]["prefect"]
    see(browser, f"{served.urls['prefect']}/runs/flow-run/{flow_run}", "Completed", "claif")
    artifacts = served.prefect("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    by_key = {a["key"]: a["id"] for a in artifacts}
    see(
        browser,
        f"{served.urls['prefect']}/artifacts/artifact/{by_key['claif-claims']}",
        "Learning from AI scores",
        "verdict",
    )
    browser.get(f"{served.urls['prefect']}/artifacts/artifact/{by_key['claif-plots']}")
    widths = (
        "return [...document.querySelectorAll('img')].filter(i => i.src.startsWith('data:')).map(i => i.naturalWidth)"
    )
    WebDriverWait(browser, 60).until(
        lambda d: len(d.execute_script(widths)) == 3 and min(d.execute_script(widths)) > 300
    )


def test_browser_shows_the_mlflow_run(served, run, browser):
    _, report, _ = run
    experiment = served.mlflow("experiments/get-by-name?experiment_name=claif")["experiment"]["experiment_id"]
    url = f"{served.urls['mlflow']}/#/experiments/{experiment}/runs/{report['run']['mlflow']}"
    see(browser, url, report["run"]["id"], "student.width")


def test_browser_shows_the_ledger_on_screen_and_on_a_phone(served, run, browser):
    _, report, _ = run
    for width in (1280, 390):
        browser.set_window_size(width, 1600)
        see(
            browser,
            served.urls["report"],
            "paperflows: the ledger",
            report["claims"][0]["statement"],
            "of 19 papers run",
        )
        view = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert view[0] <= view[1], f"at {width} pixels the page is wider than the screen: {view}"
        images = "return [...document.images].map(i => { i.loading = 'eager'; return i.complete ? i.naturalWidth : 0 })"
        WebDriverWait(browser, 30).until(lambda d, script=images: min(d.execute_script(script)) > 300)
    browser.set_window_size(1280, 2000)
    errors = [e for e in browser.get_log("browser") if e["level"] == "SEVERE" and served.urls["report"] in e["message"]]
    assert [e for e in errors if "favicon" not in e["message"]] == []


def test_only_loopback_is_listened_on(served):
    processes = [psutil.Process(served.process.pid)]
    processes += processes[0].children(recursive=True)
    listening = {c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::1"}


def test_report_page_gives_nothing_else_away(served):
    for path, headers in (("/../params.yaml", {}), ("/.state/served.json", {}), ("/", {"Host": "evil.example"})):
        request = urllib.request.Request(served.urls["report"] + path, headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 404


def test_layers_are_not_top_level_packages_in_worker_and_server(served):
    """The worker starts flow runs with its own environment: nothing there may make `kernels` importable."""
    environments = [psutil.Process(served.process.pid), *psutil.Process(served.process.pid).children(recursive=True)]
    for process in environments[1:]:
        assert process.environ().get("PYTHONSAFEPATH") == "1", process.cmdline()
        assert str(served.project.root) not in process.environ().get("PYTHONPATH", "").split(os.pathsep)


def test_doctor_finds_the_servers_and_no_dead_run(served, run):
    done = served.project.run("doctor")
    assert done.returncode == 0 and served.urls["prefect"] in done.stdout and "dead run" not in done.stdout


def test_ctrl_c_stops_every_process_that_serve_started(served):
    """The last test of the file: it ends the servers of all others."""
    announced = served.project.root / ".state" / "served.json"
    assert announced.exists()
    family = psutil.Process(served.process.pid).children(recursive=True)
    assert len(family) >= 3
    os.kill(served.process.pid, signal.SIGINT)
    out, error = served.process.communicate(timeout=60)
    assert served.process.returncode == 0 and "Traceback" not in error
    assert "Ctrl-C stops everything" in out and "stopping" in out
    assert not announced.exists()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []

"""The dashboard and the alerts in `deploy/` fit the metrics, and the alerts fit their incidents."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from generation.errors import LLMError, LLMRateLimited, StaccatoError
from generation.errors.llm import AbandonedByClient, AbandonedByShutdown
from generation.errors.service import Draining
from tests.support import deploy, http

OF_PROMETHEUS = {"job", "instance"}
OF_SEVERAL = {"process"}  # a single process has no label


async def test_each_metric_and_label_that_they_name_is_in_a_scrape(here):
    async with here(OPENAI_API_KEY="k", LLM_ALLOWED="openai:gpt-test") as service:
        await http.generate(service.port)
        text = (await http.request(service.port, "GET", "/metrics")).body.decode()
    exposed = {
        name: {label for sample in family.samples for label in sample.labels}
        for family in text_string_to_metric_families(text)
        for name in (
            *({sample.name for sample in family.samples}),
            *(f"{family.name}{ending}" for ending in ("", "_total", "_bucket", "_sum", "_count")),
        )
    }
    named = [
        selector
        for document in (deploy.alerts(), deploy.dashboard())
        for expression in deploy.expressions(document)
        for selector in deploy.selectors(expression)
    ]
    assert len(named) > 80
    for metric, labels in named:
        assert metric in exposed, f"/metrics has no {metric}"
        lacking = labels - exposed[metric] - OF_PROMETHEUS - OF_SEVERAL
        assert not (exposed[metric] and lacking), f"{metric} has no label {lacking}"


def test_the_rules_are_sound():
    assert f"{len(deploy.alerts())} rules found" in deploy.promtool(
        "check", "rules", str(deploy.RULES)
    )


def test_each_incident_fires_its_alerts_and_a_calm_day_none():
    deploy.promtool("test", "rules", *map(str, deploy.INCIDENTS))


def test_each_alert_has_its_incident_its_silence_and_its_runbook():
    incidents = "".join(file.read_text() for file in deploy.INCIDENTS)
    calm = (deploy.ROOT / "tests/deploy/incidents/a_calm_day.yml").read_text()
    runbooks = re.findall(r"(?m)^### (\w+)$", (deploy.ROOT / "docs/operating.md").read_text())
    for alert in deploy.alerts():
        name = alert["alert"]
        assert f"alertname: {name}, eval_time" in calm, f"{name} may fire on a calm day"
        fires = re.search(rf"alertname: {name}\n\s+eval_time: \w+\n\s+exp_alerts:\n", incidents)
        assert fires, f"no incident fires {name}"
        assert name in runbooks, f"docs/operating.md does not say what to do about {name}"
        assert alert["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"


def test_a_failed_request_is_one_that_we_or_the_llm_failed():
    """As for callers' own faults, they must not wake anybody; nor does a restart."""
    (rule,) = (each for each in deploy.alerts() if each["alert"] == "StaccatoRequestsFail")
    pattern = re.search(r'outcome=~"(.*?)"', rule["expr"])[1]
    exempt = (AbandonedByClient, AbandonedByShutdown, Draining)
    every: list[type[StaccatoError]] = [StaccatoError, *subclasses(StaccatoError)]
    for error in every:
        if error in exempt:
            continue
        is_ours = error.status >= 500 or (
            issubclass(error, LLMError) and error.status == LLMRateLimited.status
        )
        assert bool(re.fullmatch(pattern, error.slug)) == is_ours, error.slug
    assert pattern in json_of_dashboard(), "the dashboard counts others as failed"


def subclasses(kind: type[StaccatoError]) -> set[type[StaccatoError]]:
    found = {each for direct in kind.__subclasses__() for each in (direct, *subclasses(direct))}
    return {each for each in found if each.__module__.startswith("generation.")}


def json_of_dashboard() -> str:
    return "".join(deploy.expressions(deploy.dashboard()))


def test_each_expression_of_the_dashboard_is_promql(tmp_path):
    """As rules, which promtool reads, with what Grafana puts in place of its variables."""
    expressions = [
        re.sub(r"\$\w+", ".*", each.replace("$__rate_interval", "5m"))
        for each in deploy.expressions(deploy.dashboard())
        if not each.startswith("label_values(")
    ]
    rules = [{"record": f"panel:{at}", "expr": each} for at, each in enumerate(expressions)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in deploy.promtool("check", "rules", str(file))


def test_the_dashboard_works_with_any_data_source_and_explains_each_panel():
    board = deploy.dashboard()
    assert board["id"] is None
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert all(each["datasource"]["uid"] == "${datasource}" for each in panel["targets"])
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in board["panels"]]
    assert places == sorted(set(places)), "panels stand in the order in which they are read"


# As Grafana names them; one that it does not know it shows as text after the number.
UNITS = {"short", "s", "cps", "reqps", "currencyUSD", "bool", "percentunit", "bytes"}


def test_grafana_can_import_the_dashboard():
    """Its panels have their places, and whatever they name is there."""
    board = deploy.dashboard()
    assert 36 <= board["schemaVersion"] <= 42, "as the 9th Grafana and later write it"
    assert len(board["uid"]) <= 40
    variables = board["templating"]["list"]
    source, *others = variables
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    ), "it comes first, since the others ask it"
    names = {each["name"] for each in variables}
    assert len(names) == len(variables)
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        at, title = panel["gridPos"], panel["title"]
        assert panel["type"] in {"row", "stat", "timeseries"}, title
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24, title
        for cell in (
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ):
            assert taken.setdefault(cell, title) == title, f"{title} lies over {taken[cell]}"
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, title
            ids = [target["refId"] for target in panel["targets"]]
            assert ids, f"{title} asks nothing"
            assert len(set(ids)) == len(ids), title
    for expression in deploy.expressions([board["panels"], others]):
        used = set(re.findall(r"\$\{?(\w+)", expression))
        assert used <= names | {"__rate_interval", "__range", "__interval"}, expression

"""The Grafana dashboard, as code."""

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
FLEET = 'namespace=~"$namespace"'
REPLICA = f'{FLEET},instance=~"$instance"'
VARIABLES = {
    "namespace": "label_values(limner_ready, namespace)",
    "instance": 'label_values(limner_ready{namespace=~"$namespace"}, instance)',
}
"""By name, what is offered to choose from. Everything is shown at first, also where Prometheus knows no namespaces."""


def series(name: str, *matchers: str) -> str:
    """Return the selector of the chosen replicas, or of the fleets for a recording rule: it has no instance."""
    chosen = FLEET if ":" in name else REPLICA
    return f"{name}{{{','.join((chosen, *matchers))}}}"


ANSWERED = series("limner_request_seconds_bucket", 'outcome="ok"')
PADDED = series("limner_rows_total", 'kind="padded"')
PANELS = (
    ("Images a second", "ops", f"sum(rate({series('limner_images_total')}[5m]))"),
    (
        "Requests a second, by outcome",
        "reqps",
        f"sum by (outcome) (rate({series('limner_request_seconds_count')}[5m]))",
    ),
    ("Share of failed generations", "percentunit", series("limner:request_errors:ratio_5m")),
    ("Latency, 95th percentile", "s", f"histogram_quantile(0.95, sum by (le) (rate({ANSWERED}[5m])))"),
    ("Wait for the first tick, 95th percentile", "s", series("limner:queue_wait_seconds:p95_5m")),
    ("Images that wait", "short", f"sum by (instance, engine) ({series('limner_queue_depth')})"),
    (
        "Oldest image that waits",
        "s",
        f"max by (instance, engine) ({series('limner_queue_oldest_age_seconds')})",
    ),
    (
        "Mean time of a stage",
        "s",
        (
            f"sum by (stage) (rate({series('limner_stage_seconds_sum')}[5m]))"
            f" / sum by (stage) (rate({series('limner_stage_seconds_count')}[5m]))"
        ),
    ),
    (
        "Padded share of rows",
        "percentunit",
        f"sum(rate({PADDED}[5m])) / sum(rate({series('limner_rows_total')}[5m]))",
    ),
    (
        "Share of time an engine is busy",
        "percentunit",
        f"rate({series('limner_engine_busy_seconds_total')}[5m])",
    ),
    ("Reference cache hits", "percentunit", series("limner:reference_cache_hits:ratio_30m")),
    (
        "Engine restarts",
        "short",
        f"sum by (instance, engine) (increase({series('limner_engine_restarts_total')}[15m]))",
    ),
    ("Jobs replayed", "short", f"sum by (instance) (increase({series('limner_jobs_replayed_total')}[1h]))"),
    ("Jobs poisoned", "short", f"sum by (instance) (increase({series('limner_jobs_poisoned_total')}[1h]))"),
    ("GPU memory used", "bytes", series("limner_gpu_memory_used_bytes")),
    ("GPU faults (Xid)", "short", f"increase({series('limner_gpu_xid_errors_total')}[15m])"),
)
"""Title, unit of Grafana's, expression."""


def render() -> str:
    """Return the dashboard in Grafana's JSON, the same for the same code."""
    board = dashboard.Dashboard("Limner").uid("limner").tags(["limner"]).refresh("30s").time("now-6h", "now")
    board = board.with_variable(
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    )
    for name, values in VARIABLES.items():
        board = board.with_variable(
            dashboard.QueryVariable(name)
            .datasource(SOURCE)
            .query(values)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(text="All", value="$__all", selected=True))
        )
    for title, unit, expression in PANELS:
        query = prometheus.Dataquery().expr(expression).ref_id("A")
        board = board.with_panel(
            timeseries.Panel()
            .title(title)
            .unit(unit)
            .datasource(SOURCE)
            .span(12)
            .height(8)
            .with_target(query)
        )
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"

"""The Grafana dashboard, as code."""

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder

PANELS = (
    ("Images a second", "ops", "sum(rate(limner_images_total[5m]))"),
    ("Requests a second, by outcome", "reqps", "sum by (outcome) (rate(limner_request_seconds_count[5m]))"),
    ("Share of failed generations", "percentunit", "limner:request_errors:ratio_5m"),
    (
        "Latency, 95th percentile",
        "s",
        'histogram_quantile(0.95, sum by (le) (rate(limner_request_seconds_bucket{outcome="ok"}[5m])))',
    ),
    ("Wait for the first tick, 95th percentile", "s", "limner:queue_wait_seconds:p95_5m"),
    ("Images that wait", "short", "sum by (instance, engine) (limner_queue_depth)"),
    ("Oldest image that waits", "s", "max by (instance, engine) (limner_queue_oldest_age_seconds)"),
    (
        "Mean time of a stage",
        "s",
        "sum by (stage) (rate(limner_stage_seconds_sum[5m])) / sum by (stage) (rate(limner_stage_seconds_count[5m]))",
    ),
    (
        "Padded share of rows",
        "percentunit",
        'sum(rate(limner_rows_total{kind="padded"}[5m])) / sum(rate(limner_rows_total[5m]))',
    ),
    ("Share of time an engine is busy", "percentunit", "rate(limner_engine_busy_seconds_total[5m])"),
    ("Reference cache hits", "percentunit", "limner:reference_cache_hits:ratio_30m"),
    ("Engine restarts", "short", "sum by (instance, engine) (increase(limner_engine_restarts_total[15m]))"),
    ("Jobs replayed", "short", "sum by (instance) (increase(limner_jobs_replayed_total[1h]))"),
    ("Jobs poisoned", "short", "sum by (instance) (increase(limner_jobs_poisoned_total[1h]))"),
    ("GPU memory used", "bytes", "limner_gpu_memory_used_bytes"),
    ("GPU faults (Xid)", "short", "increase(limner_gpu_xid_errors_total[15m])"),
)
"""Title, unit of Grafana's, expression."""


def render() -> str:
    """Return the dashboard in Grafana's JSON, the same for the same code."""
    board = dashboard.Dashboard("Limner").uid("limner").tags(["limner"]).refresh("30s").time("now-6h", "now")
    for title, unit, expression in PANELS:
        query = prometheus.Dataquery().expr(expression)
        board = board.with_panel(
            timeseries.Panel().title(title).unit(unit).span(12).height(8).with_target(query)
        )
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"

"""What the operator tells Prometheus about itself."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    gc_collector,
    platform_collector,
    process_collector,
)

disable_created_metrics()


class Metrics:
    """The operator's own metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        process_collector.ProcessCollector(registry=self.registry)
        platform_collector.PlatformCollector(registry=self.registry)
        gc_collector.GCCollector(registry=self.registry)
        self.reconcile_seconds = Histogram(
            "kedge_reconcile_duration_seconds",
            "Time of one pass over one ModelDeployment.",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.reconcile_errors = Counter(
            "kedge_reconcile_errors_total", "Passes that ended in an error.", registry=self.registry
        )
        self.unmeasured_pods = Counter(
            "kedge_unmeasured_pods_total", "Readings of ready pods that failed.", registry=self.registry
        )
        self.transitions = Counter(
            "kedge_transitions_total",
            "Events of rollouts, by their reason.",
            ["reason"],
            registry=self.registry,
        )
        self.record_errors = Counter(
            "kedge_record_errors_total",
            "Writes of RolloutRecords that failed; each is tried again.",
            registry=self.registry,
        )
        self.model_deployments = Gauge(
            "kedge_model_deployments", "ModelDeployments that this operator serves.", registry=self.registry
        )
        self.leader = Gauge("kedge_leader", "1 while this instance is the leader.", registry=self.registry)
        self.repairs = Counter(
            "kedge_cache_repairs_total", "Full lists that the cache was compared with.", registry=self.registry
        )

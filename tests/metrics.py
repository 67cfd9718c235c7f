"""Reads GET /metrics as Prometheus does: with its own parsers."""
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    def __init__(self, text, parse=openmetrics):
        self.families = {family.name: family for family in parse.text_string_to_metric_families(text)}
        self.samples = {(sample.name, frozenset(sample.labels.items())): sample.value
                        for family in self.families.values() for sample in family.samples}

    def value(self, name, **labels):
        """None when there is no such sample."""
        return self.samples.get((name, frozenset(labels.items())))

    def with_labels(self, name):
        """Of a name: a dictionary of labels for each of its samples."""
        return [dict(labels) for found, labels in self.samples if found == name]


def scrape(node, **more):
    reply = node.call("GET", "/metrics", **more)
    assert reply.status == 200 and reply.headers["content-type"] == OPENMETRICS, reply
    return Metrics(reply.raw.decode())

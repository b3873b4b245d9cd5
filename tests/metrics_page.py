"""Reads a page of metrics as Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families

# By name and sorted labels.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

"""What exporters call themselves."""

from importlib.metadata import version

USER_AGENT = f"Runmeter-OTLP-Exporter-Python/{version('runmeter')}"

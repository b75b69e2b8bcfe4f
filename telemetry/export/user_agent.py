"""The name by which exporters introduce themselves."""

from importlib.metadata import version

USER_AGENT = f"Runmeter-OTLP-Exporter-Python/{version('runmeter')}"

"""The layout of the package: its folders, and which of them may use which."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = {
    "engine": ROOT / "engine",
    "patterns": ROOT / "patterns",
    "telemetry": ROOT / "telemetry",
    "simulator": ROOT / "src/runmeter/simulator",
}
# A folder, and the other folders of the package whose public names it may use.
MAY_IMPORT = {
    "engine": set[str](),
    "patterns": {"engine"},
    "telemetry": {"engine"},
    "simulator": {"engine"},
}
# A folder, and its rooms: each uses none that stands after it. What stands flat in the folder is not in this order.
ROOMS = {
    "engine": ["concurrency", "validation", "models", "tokens", "prices", "budgets", "usage", "calls", "runs"],
    "patterns": [
        "tools",
        "requests",
        "retrieval",
        "openai_client",
        "openai_client.metering",
        "openai.responses",
        "openai.threads",
        "langgraph.metering",
    ],
    "telemetry": ["export"],
    "simulator": ["model", "objects", "requests", "http", "endpoints"],
}

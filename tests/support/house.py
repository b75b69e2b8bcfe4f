"""The layout of the package: its folders, and which of them may use which."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
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

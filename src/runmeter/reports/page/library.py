"""The code that draws the charts in the browser: Vega, Vega-Lite and Vega-Embed, as vl-convert ships them."""

from runmeter.engine import ConfigurationError


def check_drawing() -> None:
    """Check that charts can be drawn.

    Raises:
        ConfigurationError: a library for it is not installed.
    """
    try:
        import altair  # noqa: F401 - only whether they are there
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"the report's charts need a library that is not installed ({error.name}): pip install 'runmeter[report]'"
        ) from None


def chart_library() -> str:
    """Bundle the code for the version of Vega-Lite that Altair writes.

    It takes a few seconds, in which other threads of Python go on.
    """
    import altair
    import vl_convert

    major, minor, *_ = altair.SCHEMA_VERSION.removeprefix("v").split(".")
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=f"{major}.{minor}")

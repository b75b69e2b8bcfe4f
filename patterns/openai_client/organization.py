"""An organization's usage and costs, page by page as the API sends them, to whoever has an admin key.

The client asks for a page again where the service is busy. Pages stay JSON: the client's own objects would make floats
of amounts. Source: openai 3.54.0, `resources/admin/organization/usage.py` (2026-11).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from runmeter.engine import RunmeterError

Figure = Literal["completions", "embeddings", "costs"]
"""Endpoints that are read: usage of two kinds, and costs."""
_WIDEST = {"1d": 31, "1m": 1_440}
"""Number of buckets that a page may have, by their width."""


class OrganizationError(RunmeterError):
    """The organization's figures could not be read: the message names the cause and the way out."""


class _Page(msgspec.Struct):
    has_more: bool = False
    next_page: str | None = None


class OrganizationFigures:
    """Reads an organization's usage and costs. Blocks; close it when done.

    Args:
        admin_key: An admin key of the organization, which begins with `sk-admin-`.
        base_url: The API's address; by default the one in `OPENAI_BASE_URL`, or OpenAI's.
    """

    def __init__(self, admin_key: str, base_url: str | None = None) -> None:
        from openai import OpenAI

        # No key for models is sent, and the client wants one to be made at all.
        self._client: OpenAI = OpenAI(api_key="none", admin_api_key=admin_key, base_url=base_url)
        self._key = admin_key

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def pages(
        self,
        figure: Figure,
        start: int,
        end: int,
        *,
        group_by: Sequence[str],
        projects: Sequence[str] = (),
        width: Literal["1d", "1m"] = "1d",
    ) -> Iterator[bytes]:
        """Read all pages of one figure.

        Args:
            figure: What is read.
            start: The start, in seconds since the Unix epoch.
            end: The time before which it ends, likewise.
            group_by: What the results are told apart by.
            projects: The only projects wanted; none for all.
            width: The length of a bucket.

        Raises:
            OrganizationError: It cannot be read.
        """
        ask = getattr(self._client.admin.organization.usage.with_raw_response, figure)
        params: dict[str, Any] = {"start_time": start, "end_time": end, "bucket_width": width, "limit": _WIDEST[width]}
        params["group_by"] = list(group_by)
        if projects:
            params["project_ids"] = list(projects)
        page: str | None = None
        while True:
            content = self._ask(ask, params if page is None else {**params, "page": page})
            try:
                told = msgspec.json.decode(content, type=_Page)
            except msgspec.DecodeError as error:
                raise OrganizationError(f"{self._where} answered with something else than figures: {error}") from None
            yield content
            page = told.next_page if told.has_more else None
            if page is None:
                return

    def _ask(self, ask: Any, params: dict[str, Any]) -> bytes:
        import openai

        try:
            content: bytes = ask(**params).content
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise OrganizationError(
                f"{self._where} refuses the key in OPENAI_ADMIN_KEY: usage and costs need an admin key that may read "
                "usage (api.usage.read), which an owner of the organization makes under Settings, Admin keys"
            ) from None
        except openai.APIStatusError as error:
            words = error.message.replace(self._key, "…")
            raise OrganizationError(f"{self._where} answered with status {error.status_code}: {words}") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise OrganizationError(f"{self._where} cannot be reached: {cause}. Check --base-url") from None
        return content

    @property
    def _where(self) -> str:
        return str(self._client.base_url).rstrip("/")

"""An index of passages by their vectors, searched whole: exact, and fast enough for some hundred thousand passages."""

import os
import threading
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from zipfile import BadZipFile

import msgspec

from runmeter.engine import ConfigurationError

from .retriever import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]

_Passages: TypeAlias = list[Passage]


@dataclass(frozen=True, eq=False)
class PassageIndex:
    """Passages and their vectors. It never changes: adding to it makes a new one.

    Its methods take time that grows with its size: call them in a thread.
    """

    model: str
    """The model that made the vectors."""
    passages: Sequence[Passage] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    """The row of each text's vector. Passages with the same text have the same one, and so exactly the same score."""
    vectors: "Vectors | None" = None
    """One a row, each of length 1; None as long as there are no passages."""

    def replaced(
        self, sources: Collection[str], passages: Iterable[Passage], vectors: Mapping[str, Sequence[float]]
    ) -> Self:
        """Make an index in which these passages are all that there is of some sources.

        Args:
            sources: Their passages go.
            passages: What comes in their place.
            vectors: By text, for all texts that this index does not have.

        Raises:
            ConfigurationError: the vectors are not as long as those of this index.
        """
        import numpy as np

        kept = [*(passage for passage in self.passages if passage.source not in sources), *passages]
        rows = _rows(kept)
        if not rows:
            return type(self)(self.model)
        try:
            stacked = np.stack([self._vector(text, vectors) for text in rows])
        except ValueError as error:
            raise ConfigurationError("vectors of different lengths cannot be in one index") from error
        return type(self)(self.model, kept, rows, stacked)

    def nearest(self, vector: Sequence[float], limit: int, min_score: float | None = None) -> list[Passage]:
        """Find the passages whose vectors are most like one, the best first, with the cosine as their score.

        Args:
            vector: As long as those of this index.
            limit: How many passages at most.
            min_score: Passages with a lower score are left out.

        Raises:
            ConfigurationError: the vector is not as long as those of this index.
        """
        import numpy as np

        if self.vectors is None:
            return []
        if len(vector) != self.vectors.shape[1]:
            raise ConfigurationError(
                f"the index has vectors of {self.vectors.shape[1]} dimensions, the query's has {len(vector)}"
            )
        by_text = self.vectors @ _unit(vector)
        scores = by_text[[self.rows[passage.text] for passage in self.passages]]
        best = np.argsort(-scores, kind="stable")[:limit]
        return [
            msgspec.structs.replace(self.passages[place], score=float(scores[place]))
            for place in best.tolist()
            if min_score is None or scores[place] >= min_score
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a file, which `load` reads. A file that is there already stays whole until it is replaced.

        Raises:
            OSError: it cannot be written.
        """
        import numpy as np

        described = msgspec.json.encode({"model": self.model, "passages": self.passages})
        vectors = np.empty((0, 0), np.float32) if self.vectors is None else self.vectors
        unfinished = Path(f"{os.fspath(path)}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, described=np.frombuffer(described, np.uint8), vectors=vectors)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: str) -> Self:
        """Read an index that `save` has written.

        Args:
            path: The file.
            model: What must have made its vectors.

        Raises:
            OSError: it cannot be read.
            ConfigurationError: it holds no index, or one of another model.
        """
        import numpy as np

        try:
            # Opened here, as numpy leaves a file open that turns out to be none of its own.
            with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                described, vectors = file["described"].tobytes(), file["vectors"]
            saved = msgspec.json.decode(described, type=_Saved)
            rows = _rows(saved.passages)
            if len(vectors) != len(rows):
                raise ValueError("there is not one vector for each text")
        # A TypeError is what a file with one array alone gives, the others what is not an archive, or not all of one.
        except (TypeError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise ConfigurationError(f"{os.fspath(path)!r} holds no index of passages") from error
        if saved.model != model:
            raise ConfigurationError(f"{os.fspath(path)!r} is an index made with {saved.model!r}, not {model!r}")
        return cls(model, saved.passages, rows, vectors if rows else None)

    def _vector(self, text: str, vectors: Mapping[str, Sequence[float]]) -> Any:
        row = self.rows.get(text)
        return _unit(vectors[text]) if row is None or self.vectors is None else self.vectors[row]


class _Saved(msgspec.Struct):
    model: str
    passages: _Passages


def _rows(passages: Sequence[Passage]) -> dict[str, int]:
    return {text: row for row, text in enumerate(dict.fromkeys(passage.text for passage in passages))}


def _unit(vector: Sequence[float]) -> "NDArray[np.float32]":
    """Scale a vector to length 1."""
    import numpy as np

    values = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(values))
    return values / length if length else values

"""The Models API: list and retrieve. Source of the shape: openai 3.54.0, `types/model.py` (2026-11)."""

from typing import Any

import msgspec

from ..errors import ApiError
from ..model.catalogue import MODELS, Model
from ..service import Answer, Call, Service


def list_models(service: Service, call: Call) -> Answer:  # noqa: ARG001 - every endpoint takes them
    """Answer GET /models with the models that are served."""
    return msgspec.json.encode({"object": "list", "data": [_wire(model) for model in MODELS.values()]})


def retrieve(service: Service, call: Call) -> Answer:  # noqa: ARG001 - every endpoint takes them
    """Answer GET /models/{id} with the model."""
    if call.id not in MODELS:
        raise ApiError(404, f"The model '{call.id}' does not exist", param="model", code="model_not_found")
    return msgspec.json.encode(_wire(MODELS[call.id]))


def _wire(model: Model) -> dict[str, Any]:
    shutdown = model.shutdown.isoformat() if model.shutdown else None
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "system",
        "shutdown_date": shutdown,
    }

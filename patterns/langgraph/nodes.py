"""The nodes of our graphs: all that they ask and call is metered."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.runtime import Runtime

from .base import GraphRun

Node = TypeVar("Node", bound=Callable[..., Awaitable[Any]])


def metered(node: Node) -> Node:
    """Wrap a node so that its run's handler hears of every model and tool that it runs, however deep.

    The handler is not the graph's: LangChain would tell it of each start and end of the graph and of its nodes, which
    the pattern knows anyway, and takes some 20 µs for each (langchain-core 1.7.2, `ahandle_event`).
    """

    @wraps(node)
    async def run(state: Any, runtime: Runtime[GraphRun]) -> Any:
        # LangGraph makes this manager for each run of a node: what the node runs inherits from it.
        callbacks = (var_child_runnable_config.get() or {}).get("callbacks")
        assert isinstance(callbacks, BaseCallbackManager)  # noqa: S101 - langgraph 1.2.22, `RunnableCallable.ainvoke`
        meter = runtime.context.meter
        callbacks.add_handler(meter)
        if callbacks.parent_run_id is not None:
            meter.adopt(callbacks.parent_run_id)
        return await node(state, runtime=runtime)

    return cast("Node", run)

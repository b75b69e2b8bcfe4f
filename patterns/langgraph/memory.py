"""Conversations in memory."""

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver


class LatestStateSaver(InMemorySaver):
    """A checkpointer that keeps the latest state of each conversation.

    LangGraph's own keeps all of them, each with all that was said until then: a conversation of a thousand turns would
    be there a thousand times. Source: langgraph-checkpoint, `checkpoint/memory/__init__.py` (2026-11).
    """

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a state, in place of those before."""
        saved = super().put(config, checkpoint, metadata, new_versions)
        place = (config["configurable"]["thread_id"], config["configurable"]["checkpoint_ns"])
        states = self.storage[place[0]][place[1]]
        for old in list(states):
            if old == checkpoint["id"]:
                continue
            written, *_ = states.pop(old)
            self.writes.pop((*place, old), None)
            for channel, version in self.serde.loads_typed(written)["channel_versions"].items():
                if checkpoint["channel_versions"].get(channel) != version:
                    self.blobs.pop((*place, channel, version), None)
        return saved

# /// script
# requires-python = ">=3.11"
# dependencies = ["msgspec==0.22.0"]
# ///
"""The limits of the library that events are made with: msgspec's frozen structs, and its codec with a kept decoder."""

from worker import Bench, Work, serve


def load() -> Bench:
    import msgspec
    from engine.call import TOOL_CALL

    fields = [(name, type(value) if value is not None else str | None) for name, value in TOOL_CALL.items()]
    struct = msgspec.defstruct("ToolCall", fields, frozen=True, gc=False, kw_only=True, tag="tool_call")
    values = tuple(TOOL_CALL.values())
    event = struct(**TOOL_CALL)
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(struct).decode
    data = encode(event)

    def build(times: int) -> None:
        run_id, seq, time_ns, trace, name, start_ns, duration_ns, call_id, error_type, error_message = values
        for _ in range(times):
            struct(
                run_id=run_id,
                seq=seq,
                time_ns=time_ns,
                trace=trace,
                name=name,
                start_ns=start_ns,
                duration_ns=duration_ns,
                call_id=call_id,
                error_type=error_type,
                error_message=error_message,
            )

    def codec_encode(times: int) -> None:
        for _ in range(times):
            encode(event)

    def codec_decode(times: int) -> None:
        for _ in range(times):
            decode(data)

    cases: dict[str, Work] = {
        "build an event": build,
        "codec encode": codec_encode,
        "codec decode": codec_decode,
    }
    return Bench(cases)


if __name__ == "__main__":
    serve(load, ["msgspec"])

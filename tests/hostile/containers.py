"""Files that are put together of parts, good and hostile ones alike: ONNX models, and forms of browsers."""

from __future__ import annotations

__all__ = ["BOUNDARY", "disposition", "form", "graph"]

BOUNDARY = "stoker"


def graph(*, shape: tuple[int, ...] = (1,), outside: str = "", fill: int = 0, output: str = "prediction") -> bytes:
    """An ONNX model that adds up a row's numbers, and as many of its own as asked for.

    Args:
        shape: Of numbers that it says to have.
        outside: The file where those are; by default there is one number, in the model.
        fill: How many zeros it makes when it is computed.
        output: What it calls its output.
    """
    from onnx import TensorProto, helper

    own = TensorProto(name="own", data_type=TensorProto.FLOAT, dims=shape)
    if outside:
        own.data_location = TensorProto.EXTERNAL
        own.external_data.add(key="location", value=outside)
    else:
        own.raw_data = b"\0" * 4
    kept = [own, helper.make_tensor("axes", TensorProto.INT64, [1], [1])]
    nodes = [
        helper.make_node("Cast", ["numeric"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axes"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["own"], ["more"], keepdims=0),
        helper.make_node("Add", ["sums", "more"], [output]),
    ]
    if fill:
        kept.append(helper.make_tensor("size", TensorProto.INT64, [1], [fill]))
        nodes[2:3] = [
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("Add", ["zeros", "own"], ["filled"]),
            helper.make_node("ReduceSum", ["filled"], ["more"], keepdims=0),
        ]
    taken = helper.make_tensor_value_info("numeric", TensorProto.DOUBLE, ["rows", "columns"])
    given = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows"])
    made = helper.make_graph(nodes, "sums", [taken], [given], kept)
    opsets = [helper.make_opsetid("", 18)]
    content: bytes = helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    return content


def form(*parts: tuple[str, bytes]) -> bytes:
    """A body of ``multipart/form-data``: of each part its lines of headers, and its content."""
    line = f"--{BOUNDARY}".encode()
    body = b"".join(line + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return body + line + b"--\r\n"


def disposition(name: str, filename: str) -> str:
    """The header of a part that is a file."""
    return f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'

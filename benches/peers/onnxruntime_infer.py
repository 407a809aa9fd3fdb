"""onnxruntime: the network as an ONNX graph, in f32 or dynamically quantised to int8."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import CannotRun, Runner, cycled, inference_inputs, main, prepare_threads

THREADS = prepare_threads()


def version() -> str:
    import onnxruntime

    return onnxruntime.__version__


def graph(case, parameters):
    """MatMul, Add and Relu nodes: the form onnxruntime's fusions and its quantiser both know."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers = [], []
    halves = ["encoder", "decoder"] if case.mode == "reconstruct" else ["encoder"]
    tensor = "rows"
    for half in halves:
        for at, (weight, bias) in enumerate(parameters[half]):
            name = f"{half}.{at}"
            if at > 0:
                nodes.append(helper.make_node("Relu", [tensor], [f"{name}.relu"]))
                tensor = f"{name}.relu"
            initializers.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), f"{name}.weight"))
            initializers.append(numpy_helper.from_array(bias, f"{name}.bias"))
            nodes.append(helper.make_node("MatMul", [tensor, f"{name}.weight"], [f"{name}.product"]))
            nodes.append(helper.make_node("Add", [f"{name}.product", f"{name}.bias"], [f"{name}.sum"]))
            tensor = f"{name}.sum"
    width = case.workload.width
    out_width = parameters[halves[-1]][-1][0].shape[0]
    description = helper.make_graph(
        nodes,
        "autoencoder",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [case.batch, width])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [case.batch, out_width])],
        initializers,
    )
    model = helper.make_model(description, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model, tensor


def build(case, data, parameters, options) -> Runner:
    import numpy as np
    import onnx
    import onnxruntime

    if case.mode == "train":
        raise CannotRun("onnxruntime does not train")
    if case.precision == "bf16":
        raise CannotRun("onnxruntime has no bf16 kernels on the CPU")
    settings = ["io binding", "all graph optimisations"]
    model, output = graph(case, parameters)
    session_options = onnxruntime.SessionOptions()
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session_options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.add_session_config_entry("session.set_denormal_as_zero", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        if case.precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantised = Path(folder) / "int8.onnx"
            quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
            path = quantised
            settings.append("dynamic quantisation, signed 8-bit weights")
        session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])

    inputs = inference_inputs(case, data)
    out_width = parameters["decoder" if case.mode == "reconstruct" else "encoder"][-1][0].shape[0]
    result = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((case.batch, out_width), np.float32))
    bindings = []
    for rows in inputs:
        binding = session.io_binding()
        binding.bind_ortvalue_input("rows", onnxruntime.OrtValue.ortvalue_from_numpy(rows))
        binding.bind_ortvalue_output(output, result)
        bindings.append(binding)
    run_options = onnxruntime.RunOptions()
    return Runner(
        cycled(lambda turn: session.run_with_iobinding(bindings[turn], run_options), len(bindings)),
        settings=settings,
    )


if __name__ == "__main__":
    main("onnxruntime", version, build)

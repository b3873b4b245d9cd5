"""Our file of the Open Inference Protocol has the numbers that published clients use.

The table is the published one, written down a second time: a slip in the file would otherwise be
served consistently and understood by nobody.
"""

import subprocess
import sys

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from detent.api.inference import grpc_service_pb2 as pb

TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}
PUBLISHED = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions string*",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse": (
        "1 name string, 2 versions string*, 3 platform string, 4 inputs TensorMetadata*, "
        "5 outputs TensorMetadata*, 6 parameters ParametersEntry*"
    ),
    "ModelMetadataResponse.TensorMetadata": (
        "1 name string, 2 datatype string, 3 shape int64*, 4 parameters ParametersEntry*"
    ),
    "ModelInferRequest": (
        "1 model_name string, 2 model_version string, 3 id string, "
        "4 parameters ParametersEntry*, 5 inputs InferInputTensor*, "
        "6 outputs InferRequestedOutputTensor*, 7 raw_input_contents bytes*"
    ),
    "ModelInferRequest.InferInputTensor": (
        "1 name string, 2 datatype string, 3 shape int64*, 4 parameters ParametersEntry*, "
        "5 contents InferTensorContents"
    ),
    "ModelInferRequest.InferRequestedOutputTensor": "1 name string, 2 parameters ParametersEntry*",
    "ModelInferResponse": (
        "1 model_name string, 2 model_version string, 3 id string, "
        "4 parameters ParametersEntry*, 5 outputs InferOutputTensor*, 6 raw_output_contents bytes*"
    ),
    "ModelInferResponse.InferOutputTensor": (
        "1 name string, 2 datatype string, 3 shape int64*, 4 parameters ParametersEntry*, "
        "5 contents InferTensorContents"
    ),
    "InferParameter": (
        "1 bool_param bool, 2 int64_param int64, 3 string_param string, "
        "4 double_param double, 5 uint64_param uint64"
    ),
    "InferTensorContents": (
        "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, "
        "4 uint_contents uint32*, 5 uint64_contents uint64*, 6 fp32_contents float*, "
        "7 fp64_contents double*, 8 bytes_contents bytes*"
    ),
}


def fields_of(message: Descriptor) -> str:
    """Write a message's fields as the table has them."""
    shown = []
    for field in sorted(message.fields, key=lambda field: field.number):
        kind = field.message_type.name if field.message_type else TYPES[field.type]
        shown.append(f"{field.number} {field.name} {kind}{'*' if field.is_repeated else ''}")
    return ", ".join(shown)


def test_messages_have_the_published_fields() -> None:
    found = {}
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        found[name] = fields_of(message)
        for nested in message.nested_types:
            if not nested.GetOptions().map_entry:
                found[f"{name}.{nested.name}"] = fields_of(nested)

    assert pb.DESCRIPTOR.package == "inference"
    assert found == PUBLISHED


def test_methods_have_the_published_names() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    names = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"]

    assert [method.name for method in service.methods] == [*names, "ModelInfer"]
    for method in service.methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"
        assert not method.client_streaming
        assert not method.server_streaming


def test_a_strategist_may_load_a_published_client_beside_ours() -> None:
    """Two files of one name and package cannot be loaded in one process."""
    check = "import sys, detent_client; print('detent.api.inference' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, check=True, text=True, timeout=60
    )

    assert result.stdout.strip() == "False"

"""Find the domain types of a call by the names in its service descriptor."""

import re
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from detent.api.v1 import (
    feature_service_pb2,
    inference_service_pb2,
    ledger_service_pb2,
    policy_service_pb2,
)
from detent.contracts.calls import (
    decision_stream,
    feature,
    inference,
    ledger,
    policy,
    replanning,
)
from detent.contracts.json_codec import is_domain_type

SERVICES: dict[str, ServiceDescriptor] = {
    service.name: service
    for module in (
        feature_service_pb2,
        inference_service_pb2,
        policy_service_pb2,
        ledger_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
}
_TYPES: dict[str, Any] = {
    name: kind
    for module in (feature, inference, policy, ledger, decision_stream, replanning)
    for name, kind in vars(module).items()
    if is_domain_type(kind)
}


def request_type(method: MethodDescriptor) -> Any:
    """Give the domain type of a method's request."""
    return _TYPES[method.input_type.name]


def response_type(method: MethodDescriptor) -> Any:
    """Give the domain type of a method's response."""
    return _TYPES[method.output_type.name]


def handler_name(method: MethodDescriptor) -> str:
    """Give the name under which a handler serves a method: snake case of its own."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()


def path_of(method: MethodDescriptor) -> str:
    """Give the path of a method on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"

"""Two messages of TensorFlow Serving that tensorflow-serving-api does not ship, by their published fields.

MonitoringConfig    tensorflow_serving/config/monitoring_config.proto
BatchingParameters  tensorflow_serving/servables/tensorflow/session_bundle_config.proto, the fields that are set here
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

Field = descriptor_pb2.FieldDescriptorProto

_INT64 = f".{wrappers_pb2.Int64Value.DESCRIPTOR.full_name}"
_MESSAGES: dict[str, list[tuple[str, int, Any, str]]] = {
    "PrometheusConfig": [("enable", 1, Field.TYPE_BOOL, ""), ("path", 2, Field.TYPE_STRING, "")],
    "MonitoringConfig": [("prometheus_config", 1, Field.TYPE_MESSAGE, ".lim_keras_tests.PrometheusConfig")],
    "BatchingParameters": [
        ("max_batch_size", 1, Field.TYPE_MESSAGE, _INT64),
        ("batch_timeout_micros", 2, Field.TYPE_MESSAGE, _INT64),
        ("max_enqueued_batches", 3, Field.TYPE_MESSAGE, _INT64),
        ("num_batch_threads", 4, Field.TYPE_MESSAGE, _INT64),
        ("allowed_batch_sizes", 6, Field.TYPE_INT64, ""),
        ("pad_variable_length_inputs", 7, Field.TYPE_BOOL, ""),
    ],
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="lim_keras_tests.proto", package="lim_keras_tests", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, type_name in fields:
            repeated = field == "allowed_batch_sizes"
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lim_keras_tests.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _messages()

"""A kubelet by other hands: Google's gRPC, and code that was generated from the published interface.

Usage: kubelet.py GENERATED DIRECTORY

Serves Registration in DIRECTORY; a plugin that registers is dialled and asked for its options before it is answered, as
kubelet does since 1.26, and its devices are watched. Each line of the standard input is a call in JSON, and is answered
with a line of JSON.
"""

import concurrent.futures
import json
import os
import sys
import threading

sys.path.insert(0, sys.argv[1])
import api_pb2
import api_pb2_grpc
import grpc
from google.protobuf import json_format, unknown_fields

DIRECTORY = sys.argv[2]
LIMIT = 30  # seconds


def plain(message):
    """A message as JSON, with all of its fields; what the interface does not have is an error."""
    extra = [field.field_number for field in unknown_fields.UnknownFieldSet(message)]
    if extra:
        raise ValueError(f"fields that the interface does not have: {extra}")
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)


class Kubelet(api_pb2_grpc.RegistrationServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.registrations = []
        self.plugins = {}
        self.devices = {}

    def Register(self, request, context):
        # Kubelet sends this since 1.26. By itself this library sends the path, which gRPC in Rust refuses.
        options = [("grpc.default_authority", "localhost")]
        channel = grpc.insecure_channel("unix://" + os.path.join(DIRECTORY, request.endpoint), options)
        grpc.channel_ready_future(channel).result(timeout=10)
        plugin = api_pb2_grpc.DevicePluginStub(channel)
        options = plugin.GetDevicePluginOptions(api_pb2.Empty(), timeout=LIMIT)
        with self.changed:
            self.registrations.append({"request": plain(request), "options": plain(options)})
            self.plugins[request.resource_name] = plugin
        threading.Thread(target=self.watch, args=(request.resource_name, plugin), daemon=True).start()
        return api_pb2.Empty()

    def watch(self, resource, plugin):
        try:
            for answer in plugin.ListAndWatch(api_pb2.Empty()):
                with self.changed:
                    self.devices[resource] = plain(answer)["devices"]
                    self.changed.notify_all()
        except grpc.RpcError as error:
            print(f"{resource}: {error.code()}: {error.details()}", file=sys.stderr)
        with self.changed:
            self.devices[resource] = None
            self.changed.notify_all()

    def call(self, ask):
        if ask["call"] == "registrations":
            with self.changed:
                return self.registrations
        resource = ask["resource"]
        if ask["call"] == "devices":
            def states():
                devices = self.devices.get(resource)
                return None if devices is None else [device["health"] for device in devices]

            with self.changed:
                self.changed.wait_for(lambda: states() == ask["states"], timeout=LIMIT)
                return self.devices.get(resource)
        plugin = self.plugins[resource]
        if ask["call"] == "allocate":
            requests = [api_pb2.ContainerAllocateRequest(devices_ids=ids) for ids in ask["containers"]]
            return plain(plugin.Allocate(api_pb2.AllocateRequest(container_requests=requests), timeout=LIMIT))
        if ask["call"] == "preferred":
            request = api_pb2.ContainerPreferredAllocationRequest(
                available_deviceIDs=ask["available"], must_include_deviceIDs=ask["must"], allocation_size=ask["size"]
            )
            question = api_pb2.PreferredAllocationRequest(container_requests=[request])
            return plain(plugin.GetPreferredAllocation(question, timeout=LIMIT))
        if ask["call"] == "pre_start":
            return plain(plugin.PreStartContainer(api_pb2.PreStartContainerRequest(devices_ids=ask["ids"]), timeout=LIMIT))
        raise ValueError(ask["call"])


def main():
    kubelet = Kubelet()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=4))
    api_pb2_grpc.add_RegistrationServicer_to_server(kubelet, server)
    if not server.add_insecure_port("unix://" + os.path.join(DIRECTORY, "kubelet.sock")):
        raise OSError("cannot listen")
    server.start()
    print("serving", flush=True)
    for line in sys.stdin:
        try:
            answer = kubelet.call(json.loads(line))
        except grpc.RpcError as error:
            answer = {"code": error.code().name, "text": error.details()}
        print(json.dumps(answer, sort_keys=True), flush=True)


main()

# SPDX-License-Identifier: Apache-2.0
"""Steps of a network that are recorded once per image size and then replayed as CUDA graphs.

A step is some thousand small launches, which take a host longer than a GPU needs for the work.
What is recorded reads and writes fixed places in memory; here inputs are copied to them and
outputs from them, 16 MB for the published networks, so that whoever steps sees no difference.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState

_log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
Record = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], None]]]
"""Takes what is to be recorded; returns its outputs, and what makes them anew in their places."""

_MOST = 8  # recordings; an image size needs two
_WARM_UPS = 3  # before a recording, in which libraries choose their kernels
# Relative norm by which a replay may differ from the step it was recorded of: in bfloat16 other
# kernels may be chosen for it.
_TOLERANCE = 0.02
_STATE, _PREDICTION = "state.", "prediction."


class RecordingError(RuntimeError):
    """A recorded step does not give what the step gives."""


def record_cuda_graph(
    device: torch.device, run: Callable[[], Tensors]
) -> tuple[Tensors, Callable[[], None]]:
    """Record what `run` does on a CUDA device; as `Record`."""
    with torch.cuda.device(device):
        current = torch.cuda.current_stream()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = run()
    return outputs, graph.replay


class RecordedNetwork:
    """`encode` and `advance` of a network by recordings; several streams at once are stepped as is.

    Attributes:
        network: the network itself; its weights have to stay where they are.
        is_given_up: recording has failed and is not tried again; everything is stepped as is.
    """

    def __init__(self, network: Network, *, strict: bool, record: Record) -> None:
        """Record nothing yet.

        Args:
            network: to be stepped.
            strict: raise if a recording fails, instead of going on without any.
            record: what records.
        """
        self.network = network
        self.is_given_up = False
        self._strict = strict
        self._record = record
        self._recorded: OrderedDict[tuple[object, ...], _Recording] = OrderedDict()

    def encode(self, image: Tensor) -> Tensor:
        """See `Network.encode`."""

        def run(inputs: Tensors) -> Tensors:
            return {"features": self.network.encode(inputs["image"])}

        return self._replay("encode", run, {"image": image})["features"]

    def advance(
        self, state: RecurrentState, features: Tensor, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        """See `Network.advance`."""

        def run(inputs: Tensors) -> Tensors:
            before = RecurrentState.from_tensors(_taken(inputs, _STATE))
            after, seen = self.network.advance(before, inputs["features"], update)
            found = {entry.name: getattr(seen, entry.name) for entry in fields(seen)}
            return _prefixed(_STATE, after.to_tensors()) | _prefixed(
                _PREDICTION, {name: value for name, value in found.items() if value is not None}
            )

        inputs = {"features": features, **_prefixed(_STATE, state.to_tensors())}
        outputs = self._replay(f"advance {update}", run, inputs)
        after = RecurrentState.from_tensors(_taken(outputs, _STATE))
        return after, Prediction(**_taken(outputs, _PREDICTION))

    def _replay(self, what: str, run: Callable[[Tensors], Tensors], inputs: Tensors) -> Tensors:
        if self.is_given_up or any(tensor.shape[0] != 1 for tensor in inputs.values()):
            return run(inputs)
        key = (what, *sorted((name, tensor.shape) for name, tensor in inputs.items()))
        if key not in self._recorded:
            try:
                self._recorded[key] = _Recording(run, inputs, self._record)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if self._strict:
                    raise
                _log.warning("steps are not recorded as CUDA graphs: %s", error)
                self.is_given_up = True
                self._recorded.clear()
                return run(inputs)
            if len(self._recorded) > _MOST:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return self._recorded[key](inputs)


class _Recording:
    """One recorded function, and the places in memory that it works on."""

    def __init__(self, run: Callable[[Tensors], Tensors], inputs: Tensors, record: Record) -> None:
        """Record it, and compare a replay with the function.

        Raises:
            RecordingError: they differ.
        """
        expected = run(inputs)  # makes the tables of positions too, which recordings must not
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self._outputs, self._replay = record(lambda: run(self._inputs))
        for name, tensor in self(inputs).items():
            if not _is_near(tensor, expected[name]):
                raise RecordingError(f"a replay gives another {name} than the step itself")

    def __call__(self, inputs: Tensors) -> Tensors:
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        self._replay()
        return {name: tensor.clone() for name, tensor in self._outputs.items()}


def _is_near(got: Tensor, expected: Tensor) -> bool:
    got, expected = got.double(), expected.double()
    difference, scale = (got - expected).norm(), expected.norm()
    return bool(~scale.isfinite() | (difference <= _TOLERANCE * scale))


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _taken(tensors: Tensors, prefix: str) -> Tensors:
    """Those whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }

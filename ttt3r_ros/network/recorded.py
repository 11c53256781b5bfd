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
from functools import cache

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


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of a device that is recorded on.

    Not torch's own for that, which belongs to whichever device came first; and always the same,
    for torch has 32 of them and gives each of those to several.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class CudaGraphs:
    """Records what is done on one CUDA device; a `Record`."""

    def __init__(self, device: torch.device) -> None:
        """Make what all recordings share.

        They are replayed one after the other, and their outputs are copied before the next, so
        that they can use the same memory.
        """
        self._device = device
        self._stream = _recording_stream(device)
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record what `run` does."""
        graph = torch.cuda.CUDAGraph()
        # The stream is named although it is the current one: after a recording that fails,
        # torch leaves its own in its place.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream()):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    run()
            torch.cuda.current_stream().wait_stream(self._stream)
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ):
                outputs = run()
        return outputs, graph.replay


class RecordedNetwork:
    """`encode` and `advance` of a network by recordings; several streams at once are stepped as is.

    Attributes:
        network: the network itself; its weights have to stay where they are.
    """

    def __init__(self, network: Network, *, strict: bool, record: Record) -> None:
        """Record nothing yet.

        Args:
            network: to be stepped.
            strict: raise if a recording fails, instead of going on without any.
            record: what records.
        """
        self.network = network
        self._is_given_up = False
        self._strict = strict
        self._record = record
        self._recorded: OrderedDict[tuple[object, ...], _Recording] = OrderedDict()

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Tensor:
        """See `Network.encode`: [B, 3, H, W] to [B, gh, gw, E]."""

        def run(inputs: Tensors) -> Tensors:
            return {"features": self.network.encode(inputs["image"])}

        return self._replay("encode", run, {"image": image})["features"]

    @torch.inference_mode()
    def advance(
        self, state: RecurrentState, features: Tensor, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        """See `Network.advance`: features [B, gh, gw, E]."""

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
        if self._is_given_up or any(tensor.shape[0] != 1 for tensor in inputs.values()):
            return run(inputs)
        key = (
            what,
            *sorted((name, tensor.shape, str(tensor.dtype)) for name, tensor in inputs.items()),
        )
        if key not in self._recorded:
            try:
                self._recorded[key] = _Recording(run, inputs, self._record)
            except RuntimeError as error:  # a lack of memory is one: recordings need some
                if self._strict:
                    raise
                _log.warning("steps are not recorded as CUDA graphs: %s", error)
                self._is_given_up = True
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
        expected = run(inputs)  # makes the tables of positions too, which outlive recordings
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self._outputs, self._replay = record(lambda: run(self._inputs))
        for tensor in self._outputs.values():
            tensor.zero_()  # so that a replay that does nothing is found out
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

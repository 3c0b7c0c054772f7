"""What the calls of one thread leave for its next calls."""

import threading

from clockwork.pipeline.controlnet_call import ControlNetCall
from clockwork.pipeline.step_log import StepLog
from clockwork.pipeline.step_tracking import LoopState


class ThreadState(threading.local):
    """The state of one thread after its last UNet call, and the calls of ControlNets since.

    Attributes:
        states: States after the last calls of known position, of each image and half of guidance.
        log: Log of the last step.
        unknown_log: Log of the last step of unknown position.
        branches: Names of the branches of guidance that the next calls have, if the caller tells them.
    """

    states: tuple[LoopState, ...] = ()
    log: StepLog | None = None
    unknown_log: StepLog | None = None
    branches: tuple[str, ...] = ()
    _controlnets: tuple[ControlNetCall, ...] = ()

    def add_controlnet(self, call: ControlNetCall) -> None:
        """Stores a ControlNet's call for the UNet's call with the same timestep.

        Args:
            call: The call.
        """
        earlier = (c for c in self._controlnets if c.call["timestep"] is call.call["timestep"])
        self._controlnets = (*earlier, call)

    def take_controlnets(self) -> tuple[ControlNetCall, ...]:
        """Returns the calls that are stored, and forgets them."""
        calls, self._controlnets = self._controlnets, ()
        return calls

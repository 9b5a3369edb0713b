"""Questions of a sampler in, the answers of a share of its environments out; runs in a worker."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipper.board import Board
from clipper.engine.choice import accelerate_copy
from clipper.engine.native_envs import local_sampler
from clipper.errors import ClipperError, InvariantBreach
from clipper.faults import Fault, FaultLedger
from clipper.mailbox import Mailbox
from clipper.sampler import LocalSampler, SamplerMark, block_shapes
from clipper.scoring import Score

# importing torch takes seconds, in which the parent may end too
START = (
    # not ignored, which what an environment starts would inherit: the parent says when it ends
    "import json, signal, sys; signal.signal(signal.SIGINT, lambda *_: None); "
    "signal.signal(signal.SIGTERM, lambda *_: None); "
    "signal.getsignal(signal.SIGHUP) or signal.signal(signal.SIGHUP, lambda *_: None); "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from clipper.mailbox import end_with; end_with(int(sys.argv[-2]), sys.argv[-1] == '1'); "
    "from clipper.worker_process import main; main([int(word) for word in sys.argv[2:]])"
)


# asks a worker that hangs where it is; Windows has neither the signal nor workers
TELL = getattr(signal, "SIGUSR2", 0)


class ShownBlocks:
    """The blocks of a sampler on a board, and where it is.

    Args:
        board: Where they lie.
        sampler: Whose they are.
    """

    def __init__(self, board: Board, sampler: LocalSampler) -> None:
        self.position = board.position
        self.place = board.place
        self._board = board
        self._sampler = sampler

    def blocks(self, num_steps: int) -> tuple[NDArray[Any], ...]:
        """Returns blocks of `block_shapes`, endings all False; the same memory every time."""
        sampler = self._sampler
        shapes = block_shapes(
            num_steps, sampler.num_envs, sampler.obs_layout, sampler.action_layout
        )
        found = self._board.arrays(shapes)
        for ended in found[-2:]:
            ended[...] = False
        return found


class Share:
    """A share of a run's environments with a copy of its policy.

    Args:
        content: The pickle of environment source, indices of the environments, their number in all,
            the run's seed, policy, settings and vectorization.
        board: Where another process can see what is collected.
    """

    def __init__(self, content: bytes, board: Board | None = None) -> None:
        source, share, num_envs, seed, policy, config, vectorization = pickle.loads(content)
        torch.set_num_threads(1)
        self._policy = policy
        self._source = source
        self._engine = accelerate_copy(policy, config)
        # counted here as well, for environments that never give a good number
        drops = FaultLedger() if config.on_nonfinite == "drop-episode" else None
        self._sampler = local_sampler(source, share, seed, vectorization, num_envs, drops)
        self._board = board
        if board is not None:
            self._sampler.show_on(ShownBlocks(board, self._sampler))
        self._before: SamplerMark | None = None

    def answer(self, name: str, *arguments: Any) -> Any:
        """Returns the answer to a question by its name."""
        return getattr(self, f"answer_{name}")(*arguments)

    def answer_collect(
        self, weights: dict[str, Any], num_steps: int, until_end: bool
    ) -> dict[str, Any]:
        """Returns the columns of a rollout with these weights."""
        self._policy.take(weights)
        rollout = self._sampler.collect(self._policy, num_steps, until_end=until_end)
        columns = {f.name: getattr(rollout, f.name) for f in dataclasses.fields(rollout)}
        found = {k: v.numpy() if torch.is_tensor(v) else v for k, v in columns.items()}
        faults = self._sampler.take_faults()
        return {**found, "standing": self._sampler.standing(), "faults": faults}

    def answer_begin(self, steps: int, episodes: NDArray[np.int64]) -> None:
        """Starts these episodes after so many steps of the run."""
        self._before = None
        self._sampler.begin_at(steps, episodes)

    def answer_score(
        self,
        weights: dict[str, Any],
        vectors: NDArray[np.float32],
        episodes: int,
        budget: int | None,
        is_marked: bool,
    ) -> tuple[dict[int, Score], dict[str, Any], list[Fault]]:
        """Returns what candidates did in these environments, where these are then, and what failed.

        Remembers where it began if marked.
        """
        if is_marked:
            self._before = self._sampler.mark()
        self._policy.take(weights)
        found = self._sampler.score(self._policy, vectors, episodes, budget)
        return found, self._sampler.standing(), self._sampler.take_faults()

    def answer_call(
        self, weights: dict[str, Any], function: Callable[..., Any], keywords: dict[str, Any]
    ) -> Any:
        """Returns what a function does with the policy of these weights and fresh environments."""
        self._policy.take(weights)
        place = None if self._board is None else self._board.place
        return function(self._policy, self._source, place=place, **keywords)

    def answer_state(self, steps: int) -> dict[str, Any]:
        """Returns the environments' state when so many steps were done: now or at the last mark."""
        # a rollout that broke off counts no steps, but the environments have moved
        is_before = self._before is not None and self._before.steps == steps
        state = self._sampler.state_dict(self._before if is_before else None)
        if int(state["steps"][0]) != steps:
            raise InvariantBreach(
                f"a worker must know its environments at step {steps}, but is at "
                f"{int(state['steps'][0])}."
            )
        return state

    def answer_load(self, state: dict[str, Any]) -> str | None:
        """Replays the environments; returns why they are not exactly where they were, or None."""
        self._before = None
        return self._sampler.load_state_dict(state)

    def close(self) -> None:
        """Closes the environments."""
        self._sampler.close()


def _traceback() -> str:
    """Returns where what is being handled was raised, in letters that any file can hold."""
    return traceback.format_exc().encode(errors="backslashreplace").decode()


def main(words: list[int]) -> None:
    """Answers until nobody asks any more.

    Args:
        words: Descriptors of the questions' file and pipe, of the answers', of the board and of the
            file for last words; more is not read.
    """
    # a crash, or the parent's question where it hangs, leaves the lines of Python it was in
    faulthandler.enable(words[5])
    faulthandler.register(TELL, words[5])
    for descriptor in words[:6]:
        os.set_inheritable(descriptor, False)  # by what an environment starts
    questions, answers, board = Mailbox(*words[:2]), Mailbox(*words[2:4]), Board(words[4])
    share: Share | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            number, content = questions.read()
            try:
                if share is None:
                    share, found = Share(content, board), None
                else:
                    found = share.answer(*pickle.loads(content))
                answer: tuple[Any, ...] = ("answer", found)
            except ClipperError as error:
                report = _traceback()
                answer = ("error", type(error).__name__, error.message, error.hint, report)
            except Exception:
                answer = ("error", "EnvironmentFault", "", None, _traceback())
            answers.write(number, pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))
    # the parent does not wait for long
    with contextlib.suppress(BaseException):
        if share is not None:
            share.close()
    # what environments left behind, threads and windows, must not keep the process
    os._exit(0)

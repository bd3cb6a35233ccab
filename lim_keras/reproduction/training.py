"""Training and scoring of the experiments, in processes; failures do not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from lim_keras.errors import LimKerasError
from lim_keras.files import delete_drafts, make_folder, recover
from lim_keras.lock import folder_lock
from lim_keras.progress import ProgressCallback
from lim_keras.reproduction.context import MODELS, RUNS
from lim_keras.reproduction.data import ReproductionData
from lim_keras.reproduction.experiments import Experiment
from lim_keras.reproduction.settings import ReproductionSettings
from lim_keras.reproduction.steps import FINISH, SCORE, Message, Step, Work, open_run, step_pixels, work
from lim_keras.training.cross_validation import OUT_OF_FOLD
from lim_keras.training.processes import KILLED, in_processes, spawn, threads_each
from lim_keras.training.run import HELD_OUT

Task = tuple[Step, ...]
"""Steps that one process takes, one after the other."""

Say = Callable[[str], None]


def train_and_score(
    settings: ReproductionSettings,
    data: ReproductionData,
    *,
    train: Sequence[Experiment],
    score: Sequence[Experiment],
    progress: ProgressCallback,
    say: Say,
) -> dict[str, str]:
    """Train the experiments `train`, then score them and the finished experiments `score`.

    Each training has its own process, except that the small models of a smoke test share `settings.jobs` processes.

    Args:
        progress: receives the pixels that all trainings have seen.
        say: receives a line for each experiment that ends.

    Returns:
        The reason of each experiment that failed, by name.
    """
    trainings = _Trainings(settings, data, train, score, progress, say)
    waiting = trainings.tasks()
    if not waiting:
        return {}
    with progress.begin("training and scoring", trainings.pixels(), unit="px"), ExitStack() as stack:
        trainings.locks = stack
        processes = in_processes(waiting, settings.jobs, trainings.start, trainings.watch)
        with closing(processes):
            for task, exit_code in processes:
                waiting[:0] = trainings.ended(task, exit_code)
    return trainings.failures


@dataclass(frozen=True, slots=True)
class _Channel:
    """Messages of a process, and the steps that it has taken."""

    messages: Connection
    done: list[Step]


class _Trainings:
    """State of all trainings, in the process that starts them."""

    def __init__(
        self,
        settings: ReproductionSettings,
        data: ReproductionData,
        train: Sequence[Experiment],
        score: Sequence[Experiment],
        progress: ProgressCallback,
        say: Say,
    ) -> None:
        self.failures: dict[str, str] = {}
        self.locks = ExitStack()
        self._settings, self._data, self._progress, self._say = settings, data, progress, say
        self._experiments = {one.name: one for one in (*train, *score)}
        self._train = {one.name for one in train}
        self._steps = {name: self._steps_of(one) for name, one in self._experiments.items()}
        self._left = {name: list(steps) for name, steps in self._steps.items()}
        self._locked: set[str] = set()
        self._refused: set[str] = set()
        self._channels: dict[Task, _Channel] = {}
        self._ended_count, self._counted = 0, dict.fromkeys((s for steps in self._steps.values() for s in steps), 0.0)

    def _steps_of(self, experiment: Experiment) -> Task:
        """Return the steps of an experiment that are not done."""
        name = experiment.name
        if name not in self._train:
            return (Step(name, SCORE),)
        folds = range(experiment.config.folds) if experiment.folds else (HELD_OUT,)
        folder = self._settings.out / RUNS / name
        untrained = [Step(name, fold) for fold in folds if not (folder / f"fold_{fold}" / OUT_OF_FOLD).exists()]
        return (*untrained, Step(name, FINISH), Step(name, SCORE))

    def pixels(self) -> int:
        """Return the pixels of all steps that are not done, weighted by their cost."""
        return max(1, round(sum(self._pixels(step) for steps in self._steps.values() for step in steps)))

    def _pixels(self, step: Step) -> float:
        return step_pixels(self._experiments[step.experiment], step)

    def tasks(self) -> list[Task]:
        """Distribute the steps over processes."""
        trained = [steps for name, steps in self._steps.items() if name in self._train]
        scored = [steps for name, steps in self._steps.items() if name not in self._train]
        if self._settings.budget == "smoke":
            return self._shared([*trained, *scored])
        return [task for steps in trained for task in self._first(steps)] + self._shared(scored)

    def _first(self, steps: Task) -> list[Task]:
        """Return a task for each fold of a cross-validation, or the only task of a single model."""
        folds = [step for step in steps if step.fold >= 0]
        if self._experiments[steps[0].experiment].folds and folds:
            return [(step,) for step in folds]
        return [steps]

    def _shared(self, chains: Sequence[Task]) -> list[Task]:
        """Distribute whole experiments to at most `jobs` processes, so that each process has about the same work."""
        loads: list[list[Step]] = [[] for _ in range(min(self._settings.jobs, len(chains)))]
        for chain in sorted(chains, key=lambda steps: -sum(map(self._pixels, steps))):
            min(loads, key=lambda load: sum(map(self._pixels, load))).extend(chain)
        return [tuple(load) for load in loads]

    def start(self, task: Task) -> BaseProcess | None:
        """Lock the runs of a task and start its process; None if none of its runs can be locked."""
        steps = tuple(step for step in task if self._begin(step.experiment))
        if not steps:
            return None
        receiver, sender = Pipe(duplex=False)
        job = Work(self._settings, self._data, self._experiments)
        process = spawn(steps[0].experiment, work, job, steps, threads_each(self._settings.jobs), sender)
        sender.close()
        self._channels[task] = _Channel(receiver, [step for step in task if step not in steps])
        return process

    def _begin(self, name: str) -> bool:
        """Lock the run of an experiment once; False if that failed. Folds go on after another fold failed."""
        if name in self._train and name not in self._locked | self._refused:
            try:
                self._lock(self._experiments[name])
                self._locked.add(name)
            except LimKerasError as error:
                self._refused.add(name)
                self._fail(name, str(error))
        return name not in self._refused

    def _lock(self, experiment: Experiment) -> None:
        """Lock run and bundle; begin a run whose folds have a process each."""
        folder, name = self._settings.out, experiment.name
        for place in (RUNS, MODELS):
            make_folder(folder / place, "out")
            # The same lock as that of `lim-keras fit` with this run folder.
            self.locks.enter_context(folder_lock(folder / place, entry=name, argument="out"))
            recover(folder / place / name)
        delete_drafts(folder / RUNS / name)
        if experiment.folds and self._settings.budget != "smoke":
            open_run(experiment, self._settings, self._data)

    def watch(self) -> None:
        """Receive the messages of all processes."""
        for channel in self._channels.values():
            _receive(channel, self._take)

    def _take(self, channel: _Channel, message: Message) -> None:
        if message.failure:
            self._fail(message.step.experiment, message.failure)
        if message.done:
            channel.done.append(message.step)
            self._count(message.step, self._pixels(message.step))
            self._finish(message.step)
        else:
            self._count(message.step, message.pixels)

    def _count(self, step: Step, pixels: float) -> None:
        """Count pixels that a step has seen in all."""
        more = min(pixels, self._pixels(step)) - self._counted[step]
        if more > 0:
            self._counted[step] += more
            self._progress.advance(round(more), step.experiment)

    def _finish(self, step: Step) -> None:
        self._left[step.experiment].remove(step)
        if step.fold == SCORE:
            self._ended_count += 1
            self._say(f"{self._ended_count} of {len(self._steps)}: {step.experiment} finished")

    def _fail(self, name: str, reason: str) -> None:
        if name not in self.failures:
            self.failures[name] = reason
            self._ended_count += 1
            self._say(f"{self._ended_count} of {len(self._steps)}: {name} failed: {reason}")
            for step in self._steps[name]:
                self._count(step, self._pixels(step))

    def ended(self, task: Task, exit_code: int) -> list[Task]:
        """Take note of the end of a process; return the tasks that follow."""
        channel = self._channels.pop(task)
        _receive(channel, self._take)
        channel.messages.close()
        left = [step for step in task if step not in channel.done and step.experiment not in self.failures]
        if left:
            reason = KILLED.format(-exit_code) if exit_code < 0 else "its process failed, see above"
            self._fail(left[0].experiment, reason)
        rest = tuple(step for step in left if step.experiment not in self.failures)
        return [rest] if rest else self._follow(task[0].experiment)

    def _follow(self, name: str) -> list[Task]:
        """Return the last task of a cross-validation, after the last of its folds."""
        left = self._left[name]
        if name in self.failures or not left or any(step.fold >= 0 for step in left):
            return []
        return [tuple(left)]


def _receive(channel: _Channel, take: Callable[[_Channel, Message], None]) -> None:
    try:
        while channel.messages.poll():
            take(channel, channel.messages.recv())
    except (EOFError, OSError):  # the process has ended
        pass
